"""Files of the hub's repositories: what names one, and how soon it is said that there is no connection."""

import socket
import time

import pytest
from huggingface_hub import constants, get_session
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ir3de import hub_repositories
from ir3de.experts.open_weights import open_weights
from ir3de.hub_repositories import HubId, check_connection, download, hub_id, router_file
from tests.helpers.pushed import hub as hub  # noqa: PLC0414 - a fixture


def unplug(monkeypatch):
    """Put an address at which nothing answers in the place of the hub."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """Be without a hub and its cache; return the seconds that were slept."""
    unplug(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", HubId("owner/name", None)),
        ("owner/name@v2", HubId("owner/name", "v2")),
        ("owner/name@refs/pr/1", HubId("owner/name", "refs/pr/1")),
        ("name", None),
        ("a/b/c", None),
        ("./owner/name", None),
        ("owner/name@", None),
        ("", None),
    ],
)
def test_what_names_a_repository(source, expected):
    assert hub_id(source) == expected


def test_a_folder_goes_before_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert hub_id("owner/name") is None
    assert hub_id(tmp_path / "other" / "name") is None
    assert hub_id("owner/name@v2") == HubId("owner/name", "v2"), "a folder has no revisions"
    with pytest.raises(ValueError, match="is a folder here"):
        hub_id("owner/name", revision="v2")


def test_a_revision_is_said_once():
    assert hub_id("owner/name", revision="v2") == HubId("owner/name", "v2")
    with pytest.raises(ValueError, match="Expected one revision of `owner/name`, but got v1 and v2"):
        hub_id("owner/name@v1", revision="v2")


def test_without_a_connection_it_is_tried_twice_and_said(no_hub):
    with pytest.raises(LocalEntryNotFoundError, match="no connection"):
        download("me/model", "config.json")
    assert sum(no_hub) == 1, "huggingface_hub waits for 23 seconds"


@pytest.mark.parametrize("name", ["nam", "me/nam"])
def test_a_bank_or_a_tokenizer_that_is_nowhere_is_refused_soon(no_hub, name):
    with pytest.raises(ValueError, match=f"Could not get `{name}`: no such folder here, and the hub did not give it"):
        open_weights(name, base=pytest.fail)
    with pytest.raises(OSError, match="no connection"):
        check_connection(name)
    assert sum(no_hub) <= 2


def test_a_mistyped_path_to_a_router_names_both_possibilities(no_hub):
    with pytest.raises(FileNotFoundError, match=r"no such folder here, and the hub did not give it \(no connection"):
        router_file("runs/quikstart", "config.json")
    assert sum(no_hub) <= 1


def test_what_the_cache_has_is_read_without_a_connection(hub, monkeypatch):
    hub.add("me/model", {"config.json": b"{}"})
    fetched = download("me/model", "config.json")
    with pytest.raises(EntryNotFoundError):
        download("me/model", "absent.json")
    unplug(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited for what is known"))
    assert download("me/model", "config.json") == fetched
    check_connection("me/model")
    with pytest.raises(LocalEntryNotFoundError):  # it may be there now
        download("me/model", "absent.json")
    with pytest.raises(EntryNotFoundError, match="has no absent.json"):  # a commit never changes
        download("me/model", "absent.json", revision=fetched.parent.name)


def test_a_hub_that_is_slow_is_waited_for(hub, monkeypatch):
    """What answers late is asked again by huggingface_hub itself, with more patience."""
    hub.add("me/model", {"config.json": b"{}"})
    client, asked = get_session(), []
    request = client.request

    def late(*given, **more):
        asked.append(more["timeout"])
        if len(asked) < 3:
            raise _read_timeout("the hub is slow")
        return request(*given, **more)

    monkeypatch.setattr(client, "request", late)
    assert download("me/model", "config.json").read_bytes() == b"{}"
    assert asked[2] > asked[0], "the third time is huggingface_hub's own, with a longer timeout"


def _read_timeout(text):
    from huggingface_hub.errors import HTTPError

    library = __import__(HTTPError.__module__.split(".")[0])
    return library.ReadTimeout(text)


def test_a_refused_download_says_what_the_hub_said(hub):
    assert hub_repositories.first_line(ValueError("\n one\ntwo")) == "one"
    assert hub_repositories.first_line(ValueError()) == "ValueError"
    with pytest.raises(FileNotFoundError, match="the hub did not give it"):
        router_file("me/nothing", "config.json")
    hub.add("me/model", {"README.md": b"#"})
    with pytest.raises(hub_repositories.NotInRepository, match=r"has no config\.json"):
        router_file("me/model", "config.json")
    with pytest.raises(FileNotFoundError, match="has no revision `v9`"):
        router_file("me/model", "config.json", revision="v9")
