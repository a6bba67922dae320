"""Likelihoods, written answers and perplexities agree with plain, unbatched computations."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
import transformers

from jdna_cli.compute.devices import accelerator
from jdna_cli.models import model_files
from jdna_cli.scoring import setup, shared_prefix
from jdna_cli.scoring.forms import form_of
from jdna_cli.scoring.padding import accepted
from jdna_cli.scoring.scorer import EvalContext
from jdna_cli.specs import EvalSpec, ModelSource
from jdna_cli.tasks import conditions, datasets, examples, lookup, prompts
from jdna_cli.tasks.datasets import Records
from tests import toys

# All that a measurement asks of an accelerator, on any machine.
CPU = SimpleNamespace(device=torch.device("cpu"))


def scored(folder, task, data, batch_size=7, **task_conditions):
    """Scorer, examples as tokens, the model, and its evaluation."""
    source = ModelSource("m", folder, "m")
    pairs = ",".join(task.pairs[:1]) or None
    spec = EvalSpec(model="m", task=task.name, split="validation", pairs=pairs, **task_conditions)
    scorer = setup.scorer_for(spec, task, source)
    part = setup.prepare(scorer, "validation", data)
    model = scorer.load(source, new_head=False)
    found = scorer.measure(model, part.encoded, EvalContext(batch_size, CPU))
    return scorer, part, model, found


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A multiple choice whose options are of several tokens and of different lengths."""
    folder = tmp_path_factory.mktemp("choice") / "data"
    toys.write(folder, train=24, validation=16)
    for file in (folder / "arc_easy").iterdir():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for i, row in enumerate(rows):
            texts = row["choices"]["text"]
            row["choices"]["text"] = [" ".join([t, "is", *texts[: (i + j) % 3]])
                                      for j, t in enumerate(texts)]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def reference(model, prompt, target, causal):
    """Log-likelihood of a target in float64, one text at a time."""
    with torch.no_grad():
        if causal:
            logits = model(input_ids=torch.tensor([prompt + target])).logits[0]
            due, logits = target, logits[len(prompt) - 1 : -1]
        else:
            started = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([target]))
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=started).logits[0]
            due = target
    return sum(float(torch.log_softmax(row, -1)[t]) for row, t in zip(logits, due, strict=True))


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen", "t5", "bart", "mbart"])
def test_options_have_the_likelihood_that_one_text_at_a_time_gives(
    families, sentences, family, shots
):
    folder, task = families(family), lookup.get("arc_easy")
    _, part, model, found = scored(folder, task, sentences, shots=shots)
    exact = model.double()
    causal = form_of(model.config) == "decoder"
    assert not shots or min(part.encoded.lengths) > 30
    for pairs, row in zip(part.encoded.pairs, found.rows, strict=True):
        sums = [reference(exact, p.prompt, p.target, causal) for p in pairs]
        assert row["outputs"] == pytest.approx(sums, abs=2e-4)
    best = [row["outputs"].index(max(row["outputs"])) for row in found.rows]
    right = sum(b == r for b, r in zip(best, part.records.labels, strict=True))
    assert found.scores["accuracy"] == right / len(best)
    normed = 0
    for example, row in zip(part.records.examples, found.rows, strict=True):
        per = [x / len(o) for x, o in zip(row["outputs"], example.options, strict=True)]
        normed += per.index(max(per)) == example.label
    assert found.scores["accuracy_norm"] == normed / len(best)


def test_ties_are_counted_and_the_first_counts(families, sentences):
    folder, task = families("llama"), lookup.get("arc_easy")
    scorer, part, model, _ = scored(folder, task, sentences)
    same = [
        e.__class__(e.id, e.texts, e.label, (e.options[0],) * 5, fields=e.fields)
        for e in part.records.examples
    ]
    encoded = scorer.encode(Records(tuple(same)))
    found = scorer.measure(model, encoded, EvalContext(64, CPU))
    assert found.scores["ties"] == 1.0
    assert all(row["prediction"] == 0 for row in found.rows)


def test_a_blank_is_filled_with_each_option_and_the_rest_is_scored():
    task = lookup.get("winogrande")
    row = {"sentence": "Tom is older than _ now .", "option1": "A", "option2": "B", "answer": "2"}
    (example,) = examples.examples_of(task, "here", [row])
    item = prompts.item(task, example, (), False)
    assert item.prompts == ("Tom is older than A", "Tom is older than B")
    assert item.targets == ("now .", "now .")
    assert item.right == 1
    assert prompts.pairs(task, example)[1] == ("Tom is older than B", "now .")


SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
            "word_embed_proj_dim": 32},
    "mistral": {"sliding_window": 16},
}  # fmt: skip
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "intermediate_size": 64}  # fmt: skip


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "mistral", "qwen2", "opt", "bloom", "gpt_neox"]
)
def test_what_prompts_share_is_read_once_and_changes_nothing(family):
    sizes = {**SIZES[family]} if family in ("gpt2", "bloom", "opt") else {
        **PLAIN, **SIZES.get(family, {})}  # fmt: skip
    if family == "gpt_neox":
        del sizes["num_key_value_heads"]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=40, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    begun = torch.randint(5, 40, (60,)).tolist()
    # What comes after the shared tokens begins differently, and is of different lengths.
    rows = [[*begun, i, *torch.randint(5, 40, (n,)).tolist()] for i, n in enumerate((3, 9, 0, 5))]
    with torch.inference_mode():
        inputs, shared = shared_prefix.read(model, rows, 0, CPU.device)
        found = model(**accepted(model, inputs)).logits[:, -1]
        for row, logits in zip(rows, found, strict=True):
            alone = model(input_ids=torch.tensor([row])).logits[0, -1]
            assert torch.allclose(logits, alone, atol=1e-5)
    # A window that slides, and places that are not told by positions, are read as they are.
    assert shared == (0 if family in ("mistral", "bloom") else 60)


@pytest.mark.parametrize("kind", ["question-answering", "translation", "arithmetic"])
@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart", "mbart"])
def test_batched_answers_are_those_of_one_prompt_at_a_time(
    families, sentences, family, kind, shots
):
    if shots and (family not in ("gpt2", "llama") or kind == "translation"):
        pytest.skip("only decoders read shots beforehand; two kinds of them are enough")
    task = lookup.get(toys.KINDS[kind])
    book = "open" if kind == "question-answering" else None
    scorer, part, model, found = scored(families(family), task, sentences, book=book, shots=shots)
    causal = form_of(model.config) == "decoder"
    for i, row in enumerate(found.rows):
        room = scorer.max_length - scorer.reserve
        ids = torch.tensor([part.encoded.pairs[i][0].prompt[-room:]])
        pair = part.records.examples[i].pair
        config = scorer._config(model, pair, scorer._ends())
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=ids >= 0, generation_config=config)
        text = scorer.tokens.tokenizer.decode(
            out[0, ids.shape[1] if causal else 0 :], skip_special_tokens=True
        )
        written = row["written"] if kind == "arithmetic" else row["prediction"]
        assert written == text.strip().partition("\n")[0].strip()
    total = -sum(
        reference(model, p[0].prompt, p[0].target, causal) for p in part.encoded.pairs
    )  # fmt: skip
    count = sum(len(p[0].target) for p in part.encoded.pairs)
    assert found.loss == pytest.approx(total / count, rel=1e-5)


def test_each_direction_is_read_and_written_in_its_languages(families, sentences):
    task = lookup.get("multi30k")
    source = ModelSource("m", families("mbart"), "m")
    spec = EvalSpec(model="m", task="multi30k", split="validation", pairs="en-de,de-fr")
    scorer = setup.scorer_for(spec, task, source)
    part = setup.prepare(scorer, "validation", sentences)
    tokenizer = model_files.tokenizer_of(families("mbart"))
    code = tokenizer.convert_tokens_to_ids
    for example, (pair,) in zip(part.records.examples, part.encoded.pairs, strict=True):
        read, written = {"en-de": ("en_XX", "de_DE"), "de-fr": ("de_DE", "fr_XX")}[example.pair]
        assert pair.prompt[0] == code(read)
        assert pair.target[0] == code(written)
        assert pair.target[-1] == tokenizer.eos_token_id
    model = scorer.load(source, new_head=False)
    found = scorer.measure(model, part.encoded, EvalContext(8, CPU))
    assert {"bleu", "chrf", "bleu_en-de", "bleu_de-fr"} <= set(found.scores)
    assert found.scores["bleu"] == (found.scores["bleu_en-de"] + found.scores["bleu_de-fr"]) / 2
    assert "en-de: BLEU nrefs:1|case:mixed" in found.protocol


def test_codes_behind_the_text_start_the_decoder(jdna, tmp_path):
    """mBART's first tokenizer puts the language after the text, its second before it."""
    second = toys.tokenizer_for("mbart")
    vocabulary = [(piece, -2.0) for piece in second.convert_ids_to_tokens(range(len(second)))]
    tokenizer = transformers.MBartTokenizer(
        vocab=vocabulary, src_lang="en_XX", tgt_lang="de_DE"
    )  # fmt: skip
    config = toys.config_for("mbart", len(tokenizer))
    torch.manual_seed(0)
    folder = tmp_path / "first"
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = toys.write(tmp_path / "data", train=96)
    recipe = ("--lr", 5e-3, "--epochs", 8, "--batch-size", 8, "--max-length", 64)
    args = ("--task", "multi30k", "--pairs", "en-de,en-fr", "--data-dir", data, "--json")
    found = jdna("finetune", folder, *args, *recipe).json
    assert found["run"]["mixture"] == 2
    assert found["metrics"]["bleu_en-de"] > 0.5
    assert found["metrics"]["bleu_en-fr"] > 0.5
    lines = (jdna.home / "1" / "predictions-validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["pair"] for row in rows} == {"en-de", "en-fr"}
    written = {w for row in rows if row["pair"] == "en-fr" for w in row["prediction"].split()}
    assert written <= set(toys.FRENCH.values()), "each in its own language"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["multiple-choice", "question-answering", "language-modelling"])
def test_a_gpu_measures_what_the_cpu_does(families, sentences, kind):
    task = lookup.get(toys.KINDS[kind])
    scorer, part, model, found = scored(families("llama"), task, sentences)
    model.to("cuda")
    there = scorer.measure(model, part.encoded, EvalContext(7, accelerator("no")))
    assert there.loss == pytest.approx(found.loss, rel=1e-4)


@pytest.mark.parametrize("stride", [None, 8, 32])
def test_perplexity_is_that_of_a_plain_sliding_window(families, sentences, stride):
    task, window = lookup.get("wikitext2"), 32
    _, part, model, found = scored(
        families("gpt2"), task, sentences, max_length=window, stride=stride
    )
    text = "\n\n".join(texts[0] for texts in part.records.texts)
    ids = model_files.tokenizer_of(families("gpt2"))(text)["input_ids"]
    total, count, seen = 0.0, 0, 0
    for start in range(0, len(ids), stride or window):
        own = ids[start : start + window]
        if len(own) < window and seen:
            break
        new = min(window - 1, start + window - seen) if seen and (stride or window) < window else 31
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([own])).logits[0].double(), -1)
        for position in range(window - new, window):
            total -= float(logs[position - 1, own[position]])
            count += 1
        seen = start + window
    assert found.scores["tokens"] == count
    assert found.scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert f"stride {stride or window}, {count} of {len(ids)} tokens" in found.protocol


def test_tokens_are_remembered_by_content(tmp_path, families, monkeypatch):
    from jdna_cli.scoring import tokenizer_cache

    monkeypatch.setattr(tokenizer_cache, "WORTH", 1)
    tokenizer = model_files.tokenizer_of(families("bert"))
    texts = ["the dog is red", "cat", ""]
    first = tokenizer_cache.Tokens(tokenizer, tmp_path)(texts, truncation=True, max_length=4)
    assert first == dict(tokenizer(texts, truncation=True, max_length=4))
    (file,) = tmp_path.iterdir()

    class Silent:
        """A tokenizer that must not be asked."""

        pad_token = "<pad>"
        all_special_tokens = ()
        backend_tokenizer = tokenizer.backend_tokenizer

        def __call__(self, *_, **__):
            raise AssertionError("asked again")

    Silent.__name__ = type(tokenizer).__name__
    again = tokenizer_cache.Tokens(Silent(), tmp_path)
    again.tokenizer.truncation_side = tokenizer.truncation_side
    assert again(texts, truncation=True, max_length=4) == first
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    for damaged in (content, b"damaged"):
        file.write_bytes(damaged)
        found = tokenizer_cache.Tokens(tokenizer, tmp_path)(texts, truncation=True, max_length=4)
        assert found == first
    assert (
        tokenizer_cache.Tokens(tokenizer, tmp_path)(texts, truncation=True, max_length=4) == first
    )
    tokenizer_cache.Tokens(tokenizer, tmp_path)([*texts, "new"], truncation=True, max_length=4)
    assert len(list(tmp_path.iterdir())) == 2


def test_prompts_of_a_chat_are_written_by_the_tokenizers_template(families, sentences, tmp_path):
    folder = tmp_path / "chatty"
    tokenizer = model_files.tokenizer_of(families("llama"))
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'][0] | upper }} : {{ m['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}A : {% endif %}"
    )
    transformers.AutoModelForCausalLM.from_pretrained(families("llama")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scorer, part, *_ = scored(folder, lookup.get("arc_easy"), sentences, chat=True, shots=1)
    ids = part.encoded.pairs[0][0].prompt
    assert ids.count(tokenizer.bos_token_id) == 1
    put = scorer.conditions
    train = conditions.apply(
        scorer.task, datasets.load(scorer.task, "train", sentences), put
    )  # fmt: skip
    (shot,) = conditions.shots(scorer.task, train, put)[""]
    text = tokenizer.decode(ids)
    assert shot.options[int(shot.label)] in text
    assert text.count("Question") == 2
    assert text.rstrip().endswith("A :")
