"""Files as people save them are read right, or refused in one line that says where."""

import json
import re

import pytest

from jdna_cli.errors import RequestError
from jdna_cli.tasks import datasets, lookup, reading

ROWS = [{"text": "café", "label": "0"}, {"text": "bad", "label": "1"}]
CSV = "text,label\ncafé,0\nbad,1\n"
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("suffix", "text"), [(".csv", CSV), (".jsonl", LINES)])
def test_a_mark_at_the_beginning_is_no_part_of_a_name(tmp_path, encoding, suffix, text):
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(text.encode(encoding))
    assert reading.READERS[suffix](file) == ROWS


@pytest.mark.parametrize(("suffix", "text"), [(".csv", CSV), (".jsonl", LINES)])
def test_another_encoding_is_told_by_line_and_byte(tmp_path, suffix, text):
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(text.encode("cp1252"))
    line, byte = (2, 4) if suffix == ".csv" else (1, 14)
    with pytest.raises(RequestError, match=rf"line {line}: byte {byte} \(0xe9\) is not UTF-8"):
        reading.READERS[suffix](file)
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(RequestError, match="is in UTF-16: save it as UTF-8"):
        reading.READERS[suffix](file)


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ('so\t1\n"so it goes\t1\nplain\t0\n', ["so", '"so it goes', "plain"]),  # never closed
        ('"The wheel" is 20" wide\t0\nbad\t1\n', ['"The wheel" is 20" wide', "bad"]),
        ('"one\t1\ntwo"\t0\nthree\t1\n', ['"one', 'two"', "three"]),  # would swallow a row
        ('"a\ttab"\t1\nplain\t0\n', ["a\ttab", "plain"]),  # quoted as spreadsheets do
    ],
)
def test_a_quotation_mark_in_tsv_swallows_no_row(tmp_path, text, texts):
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\n" + text)
    assert [row["text"] for row in reading.tab_separated(file)] == texts


def test_csv_may_hold_long_fields_and_lines_within_quotes(tmp_path):
    file = tmp_path / "rows.csv"
    long = "x" * 140_000
    file.write_text(f'text,label\n{long},0\n"one\ntwo",1\n')
    assert [row["text"] for row in reading.comma_separated(file)] == [long, "one\ntwo"]
    file.write_text('text,label\n"one" two,0\n')
    with pytest.raises(RequestError, match="line 2"):
        reading.comma_separated(file)


@pytest.mark.parametrize("sign", ["\u2028", "\u0085", "\x0c"])
def test_separators_within_a_text_end_no_line(tmp_path, sign):
    file = tmp_path / "rows.jsonl"
    row = {"text": f"one{sign}two"}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    if sign != "\x0c":
        assert reading.json_lines(file) == [row]
    table = tmp_path / "rows.csv"
    table.write_text(f"text,label\none{sign}two,1\n", encoding="utf-8")
    assert reading.comma_separated(table) == [{**row, "label": "1"}]


@pytest.mark.parametrize(
    ("escaped", "told"),
    [(r"\ud83d", r"\ud83d"), (r"\uDC4D first", r"\udc4d"), (r"\ud83d\udc4d", "")],
)
def test_half_of_a_character_is_told_by_its_line(tmp_path, escaped, told):
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "whole"}\n{"text": ["a", "' + escaped + '"]}\n')
    if not told:
        assert reading.json_lines(file)[1]["text"][1] == "\N{THUMBS UP SIGN}"
        return
    with pytest.raises(RequestError, match="line 2: " + re.escape(told) + " is half of a"):
        reading.json_lines(file)


def test_parquet_is_read_as_a_task_and_a_damaged_file_is_one_line(jdna, bert, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"sentence": f"the dog {i}", "label": i % 2} for i in range(8)]
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        parquet.write_table(arrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    args = ("finetune", bert, "--task", "sst2", "--data-dir", tmp_path / "data", "--epochs", 1)
    assert jdna(*args, "--json").json["run"]["status"] == "finished"
    (folder / "train.parquet").write_bytes(b"no")
    assert "no Parquet file" in jdna(*args, code=2).err


def test_what_was_read_is_counted_printed_and_recorded(jdna, bert):
    recipe = ("--epochs", 1, "--max-train-samples", 40)
    run = jdna("finetune", bert, "--task", "living", *recipe, "--json").json["run"]
    train, validation = (
        len(datasets.load(lookup.get("living"), split, None)) for split in ("train", "validation")
    )
    assert run["examples"] == {
        "train": {"read": train, "used": 40},
        "validation": {"read": validation, "used": validation},
    }
    told = f"examples: train 40 of {train:,} · validation {validation:,}"
    assert told in jdna("finetune", bert, "--task", "living", *recipe).out
    assert told in jdna("runs", "show", 1).out
    found = jdna("eval", "run:1", "--task", "living", "--json").json["run"]
    assert found["examples"] == {"validation": {"read": validation, "used": validation}}
    pruned = jdna("prune", bert, "--sparsity", 0.5, "--json").json["run"]
    assert pruned["examples"] is None
    (row,) = jdna("db", "query", "SELECT examples FROM run WHERE id = 3", "--format", "json").json
    assert row["examples"] is None


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("stsb", [2.0, 2.0, 2.0], "all 3 examples of validation have one label"),
        ("stsb", [2.0], "validation has one example"),
        ("cola", [1, 1], "all 2 examples of validation have one label"),
        ("mrpc", [0, 0], "no example of validation is 'equivalent', of which f1 is"),
    ],
)
def test_what_a_metric_says_nothing_of_is_refused(jdna, bert, tmp_path, task, labels, message):
    """A figure that is not defined is not recorded as 0."""
    folder = tmp_path / "data" / task
    folder.mkdir(parents=True)
    texts = {"sentence": "the dog", "sentence1": "the dog", "sentence2": "the cat"}
    for split, own in (("train", [0, 1, 0, 1]), ("validation", labels)):
        rows = [{"idx": i, "label": label, **texts} for i, label in enumerate(own)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("finetune", bert, "--task", task, "--data-dir", tmp_path / "data")
    assert message in jdna(*asked, code=2).err
    assert not (jdna.home / "1").exists()
