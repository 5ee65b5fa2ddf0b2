"""A saved router is pushed with the numbers of its own run, or with none."""

import json

import pytest
import torch
from huggingface_hub import ModelCard

from ir3de.compiling.router import compile_router
from ir3de.routers import SAVED, RandomRouter, TokenTableRouter, load_router
from ir3de.routers.card import metadata_of, router_card, with_metadata
from ir3de.upkeep.certificate import certify
from ir3de.upkeep.push import push
from ir3de.upkeep.verify import verify
from tests.helpers.counts import share
from tests.helpers.pushed import hub as hub  # noqa: PLC0414 - a fixture
from tests.helpers.pushed import router as router  # noqa: PLC0414 - a fixture
from tests.serving.alarms import router as with_alarm


@pytest.fixture
def folder(tmp_path, router):
    folder = tmp_path / "runs" / "mine" / "version_0" / "router"
    router.save_pretrained(folder)
    certify(folder, "fit")
    return folder


def compared(base, router, *, accuracy=93.5, name="ir3de"):
    """Write a comparison of a router, as ``compare`` leaves it."""
    router.save_pretrained(base / "fits" / name / "seed_42" / "router")
    row = {"routing_accuracy": accuracy, "routing_accuracy_mean": 90.0, "normalized_performance": 99.0, "regret": 0.01}
    row["intervals"] = {"routing_accuracy": [92.0, 94.5]}
    report = {"standings": [{"name": name, "row": row}], "sequences": {"code": 70, "law": 30}}
    report |= {"protocol": "corrected", "measure": "perplexity"}
    (base / "comparison.json").write_text(json.dumps(report))


def _card(hub, name="me/router"):
    return hub.repositories["model", name].files["README.md"].decode()


def test_a_pushed_router_can_be_read_and_proved(hub, folder, router):
    push(str(folder), "me/router", license="mit", message="the first")
    files = hub.repositories["model", "me/router"].files
    assert load_router("me/router").identity_hash() == router.identity_hash()
    assert hub.uploads.messages == ["the first"]
    (certificate,) = (name for name in files if name.startswith("certificates/"))
    (folder.parent / "certificate.json").write_bytes(files[certificate])
    assert all(check.holds for check in verify(str(folder), str(folder.parent / "certificate.json")))
    assert metadata_of(_card(hub))["license"] == "mit"


def test_what_goes_with_it_is_said(hub, folder, capsys):
    push(str(folder), "me/router", private=True)
    said = capsys.readouterr().out
    assert "token counts of every domain" in said
    assert "names no licence" in said
    assert "numbers on the card: none" in said
    assert "license" not in metadata_of(_card(hub))
    assert hub.repositories["model", "me/router"].private


def test_held_out_sequences_that_go_with_it_are_counted(hub, tmp_path, router, capsys):
    router.add_expert("zoology", share([9] * 20, validation=[[1, 2], [3]]))
    router.save_pretrained(tmp_path / "router")
    push(str(tmp_path / "router"), "me/router")
    assert "2 validation sequences as bags of tokens" in capsys.readouterr().out


def test_the_tests_numbers_stay(hub, folder, router):
    index = [{"name": "x", "results": [{"task": {"type": "t"}, "dataset": {"type": "d", "name": "n"},
                                        "metrics": [{"type": "accuracy", "value": 12.5}]}]}]  # fmt: skip
    (folder / "README.md").write_text(with_metadata("# Mine\n", {"model-index": index}))
    compared(folder.parents[1] / "comparison", router)
    push(str(folder), "me/router")
    assert metadata_of(_card(hub))["model-index"] == index
    assert "# Mine" in _card(hub)


def test_a_comparisons_numbers_are_taken_if_it_was_this_router(hub, folder, router, capsys):
    compared(folder.parents[1] / "comparison", router)
    push(str(folder), "me/router")
    results = ModelCard(_card(hub)).data.eval_results
    assert [one.metric_value for one in results if one.metric_name == "routing accuracy, %"] == [93.5]
    assert results[0].dataset_name == "100 held-out sequences of code, law"
    assert "| routing accuracy, % | 93.5 | 92 to 94.5 |" in _card(hub)
    assert "comparison" in capsys.readouterr().out


def test_a_fit_of_a_comparison_has_its_numbers(hub, tmp_path, router):
    compared(tmp_path / "comparison", router)
    push(str(tmp_path / "comparison" / "fits" / "ir3de" / "seed_42" / "router"), "me/router")
    assert ModelCard(_card(hub)).data.eval_results[0].metric_value == 93.5


def test_another_routers_numbers_are_not_taken(hub, folder, router):
    router.add_expert("zoology", share([9] * 20))
    compared(folder.parents[1] / "comparison", router)
    push(str(folder), "me/router")
    assert "model-index" not in metadata_of(_card(hub))
    assert "93.5" not in _card(hub)


def test_bad_metadata_are_refused_before_anything_is_sent(hub, folder):
    (folder / "README.md").write_text("---\nmodel-index: [{name: x, results: [{}]}]\n---\n# Mine\n")
    with pytest.raises(ValueError, match=r"metadata in README.md"):
        push(str(folder), "me/router")
    assert set(hub.repositories["model", "me/router"].files) == {".gitattributes"}


def test_a_damaged_router_is_not_pushed(hub, folder):
    path = next(folder.glob("router-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        push(str(folder), "me/router")
    assert not hub.repositories


def _pushed(hub, name="me/router"):
    return hub.repositories["model", name].files


def _compiled_here(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "compiled").rglob("*")
        if path.is_file()
    }


def _compiled_there(hub):
    return {name: content for name, content in _pushed(hub).items() if name.startswith("compiled/")}


def test_the_compiled_form_goes_with_it_compiled_first_where_that_is_needed(hub, folder, router, capsys):
    push(str(folder), "me/router")
    assert "missing or out of date: compiling it" in capsys.readouterr().out
    assert _compiled_there(hub) == _compiled_here(folder)
    assert json.loads(_pushed(hub)["compiled/compiled.json"])["source"]["identity"] == router.identity_hash()
    push(str(folder), "me/router")
    assert "compiling it" not in capsys.readouterr().out
    router.add_expert("zoology", share([9] * 20))
    router.save_pretrained(folder)
    push(str(folder), "me/router")
    assert "compiling it" in capsys.readouterr().out
    assert _compiled_there(hub) == _compiled_here(folder)
    assert json.loads(_pushed(hub)["compiled/compiled.json"])["source"]["identity"] == router.identity_hash()


def test_the_alarm_goes_with_it_and_goes_when_there_is_none_any_more(hub, tmp_path, router):
    with_alarm(validation=20).save_pretrained(tmp_path / "router")
    before = compile_router(str(tmp_path / "router")) / "compiled.json"
    before.write_text(json.dumps({**json.loads(before.read_text()), "format": 1}))  # of an earlier version
    push(str(tmp_path / "router"), "me/router")
    assert {name for name in _pushed(hub) if name.startswith("compiled/alarm_surprise-")}
    assert _compiled_there(hub) == _compiled_here(tmp_path / "router")
    earlier = {"compiled/alarm/compiled.json": b"{}", f"compiled/alarm/mean-{'0' * 16}.npy": b"0"}
    hub.add("me/router", {**_pushed(hub), **earlier, "compiled/alarm/mine.txt": b"mine"})
    router.save_pretrained(tmp_path / "router")
    push(str(tmp_path / "router"), "me/router")
    assert [name for name in _pushed(hub) if name.startswith("compiled/alarm")] == ["compiled/alarm/mine.txt"]


def test_what_an_older_push_left_goes_and_strangers_files_stay(hub, folder, router):
    push(str(folder), "me/router")
    strangers = {"compiled/notes.txt": b"mine", "compiled/table.npy": b"0", "other/compiled.json": b"{}"}
    hub.add("me/router", {**_pushed(hub), **strangers})
    router.push_to_hub("me/router")  # cannot compile
    assert {name for name in _pushed(hub) if "compiled" in name} == strangers.keys()
    assert "CompiledRouter" not in _card(hub)
    push(str(folder), "me/router")
    assert _compiled_there(hub) == _compiled_here(folder) | {
        name: content for name, content in strangers.items() if name.startswith("compiled/")
    }


def test_a_router_that_is_no_table_has_no_compiled_form(hub, tmp_path, capsys):
    router = RandomRouter()
    router.begin(["code", "law"], torch.ones(2))
    router.save_pretrained(tmp_path / "random")
    push(str(tmp_path / "random"), "me/random")
    assert "no compiled form" in " ".join(capsys.readouterr().out.split())
    assert not any(name.startswith("compiled") for name in _pushed(hub, "me/random"))
    assert "CompiledRouter" not in _card(hub, "me/random")


def test_the_card_shows_how_to_route_without_torch(hub, folder, router):
    (folder / "README.md").write_text(router_card(router._config(), "a folder"))
    push(str(folder), "me/router")
    assert 'CompiledRouter.from_pretrained("me/router")' in _card(hub)
    assert 'RidgeRouter.from_pretrained("me/router")' in _card(hub)
    assert 'python main.py route --router me/router "your prompt"' in _card(hub)
    assert "a folder" not in _card(hub)


def test_every_router_that_can_be_compiled_has_a_card_that_says_so():
    for name, kind in SAVED.items():
        config = {"router": name, "experts": {"a": {}}, "settings": {}, "chosen": {}, "reads": {}}
        shown = "CompiledRouter.from_pretrained" in router_card(config, "me/router")
        assert shown == issubclass(kind, TokenTableRouter), name
