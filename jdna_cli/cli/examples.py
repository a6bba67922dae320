"""What each command's help ends with: lines that can be copied."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "prune": (
        "jdna prune FacebookAI/roberta-base --sparsity 0.5",
        "jdna prune ./MiniLM --pattern 2:4 --criterion wanda --calibration rte",
        "jdna prune ./MiniLM --quantize 4 --group-size 128",
    ),
    "finetune": (
        "jdna finetune ./MiniLM --task rte",
        "jdna finetune ./MiniLM --task rte --sparsity 0.5 --seed 42",
        "jdna finetune run:3 --task rte --regime sparse-to-dense",
    ),
    "eval": (
        "jdna eval run:2 --task rte",
        "jdna eval ./SmolLM2 --task arc_easy --shots 5 --dtype auto",
        "jdna eval ./SmolLM2 --harness arc_easy,hellaswag --limit 100",
    ),
    "interpolate": (
        "jdna interpolate run:2 run:4 --task rte",
        "jdna interpolate run:2 run:4 --task rte --points 21 --plot line.png",
    ),
    "report": (
        "jdna report drop --task rte --task sst2",
        "jdna report advise --task rte --tolerance 2%",
        "jdna report --html report.html",
    ),
    "advise": (
        "jdna advise ./MiniLM --task rte",
        "jdna advise ./MiniLM --task rte --tolerance 2% --budget 30m --patterns 8",
        "jdna advise ./SmolLM2 --task wikitext2 --tolerance 10% --no-finetune",
    ),
    "scan": (
        "jdna scan ./SmolLM2 --task wikitext2 --limit 4 --plot heat.png",
        "jdna scan run:2 --task rte --sparsities 0.5,0.75 --total 0.6 --out mine.toml",
    ),
    "export": (
        "jdna export run:2 --format onnx",
        "jdna export run:2 --format openvino --length 64 --out served",
    ),
    "sweep": (
        "jdna sweep --list",
        "jdna sweep cross-task/small --workers 2",
        "jdna sweep mine.toml --dry-run",
    ),
    "demo": ("jdna demo", "jdna demo --home try-it"),
    "doctor": ("jdna doctor", "jdna doctor --json"),
    "runs list": ("jdna runs list", "jdna runs list --task rte --limit 10"),
    "runs show": ("jdna runs show 2", "jdna runs show 2 --json"),
    "runs rm": ("jdna runs rm 2",),
    "runs gc": ("jdna runs gc --dry-run", "jdna runs gc"),
    "runs verify": ("jdna runs verify", "jdna runs verify 2 3"),
    "tasks list": ("jdna tasks list", "jdna tasks list --data-dir data"),
    "tasks show": ("jdna tasks show rte > mine.toml",),
    "db path": ("jdna db path",),
    "db upgrade": ("jdna db upgrade",),
    "db backup": ("jdna db backup before-the-sweep.db",),
    "config schema": (
        "jdna config schema > experiment.schema.json",
        "jdna config schema project",
    ),
    "db query": (
        'jdna db query "SELECT * FROM performance_drop"',
        'jdna db query "SELECT id, model FROM run" --format csv',
    ),
}


def of(command: str) -> str:
    """The end of a command's help."""
    # A single line break would be taken for a space.
    return "\n\n".join(["Examples:", *EXAMPLES[command]])
