"""Each fault of the published code that concerns reading, against a plain account of what that code does."""

from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch

from ir3de.data.faults import Faults
from ir3de.routers import HiddenStates, MLPRouter, NaiveBayesRouter, TokenMeans
from tests.helpers.domains import SPLITS, MadeUpDomains
from tests.helpers.models import save_model
from tests.helpers.text import word_tokenizer

LENGTH = 16  # longer than any sequence
END = 18  # a word that sequences have too, as published blocks have between documents
UNUSED = 20


def _data(folder, faults, *, end=END, **settings):
    data = MadeUpDomains(folder=folder, block_length=LENGTH, **settings)
    tokenizer = word_tokenizer(UNUSED + 1)
    tokenizer.end_of_text = end
    tokenizer.save(folder / "tokenizer")
    data.read_with(faults)
    data.prepare_data()
    return data


def _rows(data, split, domain):
    rows, domains = data.splits[split]
    return [row for row, of in zip(rows, domains, strict=True) if of == domain]


def _counted(data):
    data.counts_training = True
    counts = [Counter() for _ in data.domain_names]
    for shard in data.train_dataloader():
        pairs = zip(shard["ids"].tolist(), shard["counts"].tolist(), strict=True)
        counts[int(shard["domain"])].update(dict(pairs))
    return counts


@pytest.mark.parametrize("on", [False, True])
def test_padding_is_fitted_votes_and_counts(tmp_path, on):
    data = _data(tmp_path, Faults(count_padding=on))
    for domain, counts in enumerate(_counted(data)):
        expected = Counter(token for row in _rows(data, "train", domain) for token in row)
        if on:
            expected[END] += sum(LENGTH - len(row) for row in _rows(data, "train", domain))
        else:
            del expected[END]  # an end of text between documents is no text
        assert counts == expected
    read = data.router_rows("test")
    batch = read[list(range(len(read)))]
    rows = [row for domain in range(3) for row in _rows(data, "test", domain)]
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], rows, strict=True):
        filled = row + [END] * (LENGTH - len(row)) if on else [token for token in row if token != END]
        assert ids[mask].tolist() == filled
    targets = data.expert_blocks("test")[[0]]
    assert int(targets["attention_mask"].sum()) == (LENGTH if on else len(rows[0]))
    assert int(data.expert_blocks("train")[[0]]["attention_mask"].sum()) == len(_rows(data, "train", 0)[0])


def test_padding_needs_an_end_of_text(tmp_path):
    data = MadeUpDomains(folder=tmp_path, block_length=LENGTH)
    data.read_with(Faults(count_padding=True))
    with pytest.raises(ValueError, match="the experts' tokenizer has none"):
        data.router_rows("test")


def test_test_sequences_are_fitted_in_the_named_domains_only(tmp_path):
    data = _data(tmp_path, Faults(fit_on_test=["law"]))
    for domain, (name, counts) in enumerate(zip(data.domain_names, _counted(data), strict=True)):
        split = "test" if name == "law" else "train"
        expected = Counter(token for row in _rows(data, split, domain) for token in row if token != END)
        assert counts == expected


@pytest.mark.parametrize("repeat_to", [1, 9, 10, 11, 25, 40])
@pytest.mark.parametrize("padded", [False, True])
def test_sequences_of_small_domains_are_repeated(tmp_path, repeat_to, padded):
    data = _data(tmp_path, Faults(repeat_to=repeat_to, count_padding=padded))
    for domain, counts in enumerate(_counted(data)):
        rows = _rows(data, "train", domain)
        times = max(repeat_to, len(rows))
        read = [rows[place % len(rows)] for place in range(times)]
        expected = Counter(token for row in read for token in row)
        if padded:
            expected[END] += sum(LENGTH - len(row) for row in read)
        else:
            del expected[END]
        assert counts == expected


@pytest.mark.parametrize(
    "faults", [{"count_padding": True}, {"repeat_to": 40}, {"count_padding": True, "repeat_to": 40}]
)
def test_a_domain_without_training_sequences_stays_empty(tmp_path, faults):
    MadeUpDomains(folder=tmp_path)  # writes the files that the next one reads
    path = tmp_path / "law.train.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    data = _data(tmp_path, Faults(**faults))
    counts = _counted(data)
    assert counts[1] == Counter()
    assert counts[0]
    assert counts[2]


@pytest.mark.parametrize("on", [False, True])
def test_choices_are_made_on_test_sequences(tmp_path, on):
    data = _data(tmp_path, Faults(choose_on_test=on))
    data.read_as(NaiveBayesRouter(tokenizer=str(tmp_path / "tokenizer")))
    rows = _rows(data, "test" if on else "validation", 1)
    kept = [sorted(token for token in row if token != END) for row in rows]
    assert sorted(bag.tolist() for bag in data.held_out("law").sequences()) == sorted(row for row in kept if row)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("by_gradient", [False, True])
def test_encoders_attend_to_padding_where_they_route(tmp_path, split, by_gradient):
    data = _data(tmp_path, Faults(drop_encoder_masks=True), end=UNUSED)
    features = HiddenStates(save_model(tmp_path / "llama", words=UNUSED + 1), pooling="last")
    data.features, data._by_gradient = features, by_gradient
    vectors_ND = data.embedded_rows(split).vectors_ND
    sequences = data.sequences(split)
    unmasked = split == "test" or not by_gradient
    expected = []
    for first in range(0, len(sequences), 16):
        batch = sequences[list(range(first, min(first + 16, len(sequences))))]
        for ids_T, real_T in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            ids = ids_T[real_T]
            padded = torch.nn.functional.pad(ids, (0, int(batch["attention_mask"].sum(1).max()) - len(ids)))
            with torch.inference_mode():
                states = features.encoder(input_ids=(padded if unmasked else ids)[None]).last_hidden_state
            expected.append(states[0, len(ids) - 1])
    torch.testing.assert_close(vectors_ND, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_other_text_is_for_gradient_trained_routers_and_never_for_the_test(tmp_path):
    texts = {name: tmp_path / f"{name}.txt" for name in ("code", "law", "maths")}
    for i, path in enumerate(texts.values()):
        folder = path.with_suffix("")
        for split in SPLITS:
            (folder / split).mkdir(parents=True)
            for document in range(3):
                words = " ".join(f"w{(i + document + step) % 17}" for step in range(3 + document))
                (folder / split / f"{document}.txt").write_text(f"{words} {split}")
    trained_on = {name: str(path.with_suffix("")) for name, path in texts.items()}
    data = _data(tmp_path, Faults(trained_on=trained_on), pack=False)
    closed, gradient = (NaiveBayesRouter(tokenizer=str(tmp_path / "tokenizer")), MLPRouter(features=TokenMeans("none")))
    gradient.features.tokenizer = closed.tokenizer
    for router, number in ((closed, len(data.splits["train"][0])), (gradient, 9)):
        data.read_as(router)
        assert len(data.router_rows("train")) == number
        tested = data.router_rows("test")
        batch = tested[list(range(len(tested)))]
        rows = [[token for token in row if token != END] for domain in range(3) for row in _rows(data, "test", domain)]
        assert [ids[m].tolist() for ids, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)] == rows


@pytest.mark.parametrize(
    "faults, message",
    [
        (Faults(fit_on_test=["laws"]), r"`faults.fit_on_test` to name domains of .* but got \['laws'\]"),
        (Faults(trained_on={"code": "x"}), r"a source for each of .* but got \['code'\]"),
    ],
)
def test_names_that_are_no_domains_are_refused(tmp_path, faults, message):
    with pytest.raises(ValueError, match=message):
        MadeUpDomains(folder=tmp_path).read_with(faults)


@pytest.mark.parametrize("key", ["routed_batches", "repeat_to"])
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(key, number):
    with pytest.raises(ValueError, match=f"`faults.{key}` to be at least 1 or null, but got {number}"):
        Faults(**{key: number})
