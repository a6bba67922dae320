"""From what was asked of an export to its spec, its model, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdna_cli import specs
from jdna_cli.files import require_new
from jdna_cli.models.formats import FORMATS
from jdna_cli.runs.model_lookup import Located, locate
from jdna_cli.runs.recording import Execution, OpenWorkspace, RecordedRun, Request, run
from jdna_cli.specs import ExportSpec
from jdna_cli.store.ledger import NewRun


@dataclass(frozen=True)
class ExportRequest(Request):
    """An export of a model that was found."""

    workspace: OpenWorkspace
    spec: ExportSpec
    located: Located
    fingerprint: str
    out: Path | None = None

    def is_answered_by(self, run: Any) -> bool:
        """Whether its file is there."""
        return (self.workspace.ledger.folder(run) / FORMATS[self.spec.format].file).is_file()

    def check(self) -> None:
        """Check the runtime, the model, and the folder."""
        from jdna_cli.pipelines import export

        export.check(self.spec, self.located.source)
        if self.out is not None:
            require_new(self.out)

    def prepare(self) -> Execution:
        """The export, and what it is compared with."""
        from jdna_cli.pipelines import export

        spec, located = self.spec, self.located
        columns = {**located.columns, "recipe": located.recipe}
        return Execution(
            NewRun(spec, self.fingerprint, columns, located.number),
            lambda context: export.export(spec, located.source, context),
        )


def resolve(
    workspace: OpenWorkspace, values: Mapping[str, Any], out: Path | None = None
) -> ExportRequest:
    """The request by content: of what was asked, and its model.

    Raises:
        RequestError: a value is wrong, or the model is not there.
    """
    spec = specs.build(ExportSpec, values)
    located = locate(workspace, spec.model)
    fingerprint = spec.fingerprint({"model": located.source.identity})
    return ExportRequest(workspace, spec, located, fingerprint, out)


def export(
    workspace: OpenWorkspace, values: Mapping[str, Any], out: Path | None = None
) -> RecordedRun:
    """Export a model, or find that it was done."""
    return run(resolve(workspace, values, out))
