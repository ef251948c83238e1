import shlex

import pytest
import tyro
from fastapi.testclient import TestClient

from fewseg.cli import main
from fewseg.inference.options import ModelOptions
from fewseg.serve import ServeOptions
from fewseg.serve.label_studio_client import StudioSettings
from fewseg.serve.server import _listen, label_options
from small_segmenters import model


def test_without_the_extra_the_error_shows_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr("fewseg.serve.server.find_spec", lambda name: None)
    assert main(["serve"]) == 1
    assert "pip install 'fewseg[serve]'" in capsys.readouterr().err


def test_the_default_is_loopback_and_a_port_in_use_is_an_error_before_a_model_is_loaded(capsys):
    with _listen(ServeOptions().host, 0) as taken:
        address, port = taken.getsockname()
        assert address == "127.0.0.1"
        assert main(["serve", "--port", str(port)]) == 1
    assert "choose a different port with --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--label-studio", "http://localhost:8080"], "LABEL_STUDIO_API_KEY"),
        (["--label-studio", "localhost:8080"], "Label Studio's URL"),
        (["--host", "300.1.2.3", "--no-auth"], "cannot listen on 300.1.2.3"),
        (
            ["--host", "0.0.0.0"],
            "set a password in the environment variable FEWSEG_PASSWORD, or give",
        ),
        (["--behind", "labels.example.org"], "--behind labels.example.org can be reached by others: set a"),
        (["--port", "70000"], "--port must be 0"),
        (["--upload-mib", "0"], "must be 1 or more"),
        (["--max-pixels", "0"], "must be 1 or more"),
        (["--tiles", "0", "--port", "0"], "tiles must have a side of at least 1 pixel"),
    ],
)
def test_invalid_options_are_errors_before_a_model_is_loaded(words, error, monkeypatch, capsys):
    for name in ("LABEL_STUDIO_API_KEY", "FEWSEG_PASSWORD", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
        monkeypatch.delenv(name, raising=False)
    assert main(["serve", "--model", "no_such_recipe", *words]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("fewseg:")
    assert error in printed


@pytest.mark.parametrize("exposed", [["--host", "0.0.0.0"], ["--behind", "labels.example.org"]])
@pytest.mark.parametrize(
    ("settings", "words", "starts"),
    [
        ({"FEWSEG_PASSWORD": "s"}, [], False),
        ({"FEWSEG_PASSWORD": "s", "BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "p"}, [], True),
        ({}, ["--no-auth"], True),
    ],
    ids=["the page's alone", "both", "no-auth"],
)
def test_what_others_reach_needs_a_password_of_label_studio_too(
    exposed, settings, words, starts, monkeypatch, capsys
):
    for name in ("FEWSEG_PASSWORD", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"LABEL_STUDIO_API_KEY": "k", **settings}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fewseg.inference.model.load_model", lambda *_, **__: None)
    monkeypatch.setattr("fewseg.serve.app.create_app", lambda *_, **__: None)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    command = ["serve", "--port", "0", "--label-studio", "http://localhost:8080", *exposed, *words]
    assert main(command) == (0 if starts else 1)
    assert ("set BASIC_AUTH_USER and BASIC_AUTH_PASS" in capsys.readouterr().err) != starts


def test_label_studio_is_read_with_the_token_and_password_of_the_environment(monkeypatch):
    made = {}
    settings = {"LABEL_STUDIO_API_KEY": "k", "BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "p"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fewseg.inference.model.load_model", lambda *_, **__: None)
    monkeypatch.setattr("fewseg.serve.app.create_app", lambda *_, **words: made.update(words))
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    words = ["--port", "0", "--label-studio", "http://localhost:8080", "--label-studio-shots", "3"]
    assert main(["serve", *words]) == 0
    assert made["label_studio"] == StudioSettings(
        url="http://localhost:8080", key="k", user="u", password="p", shots=3
    )
    assert made["hosts"] == ("127.0.0.1", "localhost", "::1")


def test_on_any_address_the_server_answers_to_names_that_it_was_given_and_to_ip_addresses(monkeypatch):
    """A foreign site whose name is made to lead here (DNS rebinding) gets nothing."""
    apps = []
    monkeypatch.setattr("fewseg.inference.model.load_model", lambda *_, **__: model())
    monkeypatch.setattr("uvicorn.Server.run", lambda server, **_: apps.append(server.config.app))
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    words = ["--host", "0.0.0.0", "--no-auth", "--behind", "Labels.example.org"]
    assert main(["serve", "--port", "0", *words]) == 0
    http = TestClient(apps[0], base_url="http://127.0.0.1:8017")
    for host in ("box:8017", "labels.example.org", "192.168.0.7:8017", "[fe80::1]:8017", "localhost"):
        assert http.get("/", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "192.168.0.7.evil.example", "labels.example.org.evil.example", "3232235527"):
        answer = http.get("/", headers={"Host": host})
        assert answer.status_code == 421, host
        assert "start the server with --behind" in answer.json()["detail"]


@pytest.mark.parametrize(("sessions", "connections"), [(8, 64), (50, 316)])
def test_each_page_may_have_the_connections_that_a_browser_opens(monkeypatch, sessions, connections):
    configs = []
    monkeypatch.setattr("fewseg.inference.model.load_model", lambda *_, **__: model())
    monkeypatch.setattr("uvicorn.Server.run", lambda server, **_: configs.append(server.config))
    assert main(["serve", "--port", "0", "--sessions", str(sessions)]) == 0
    assert configs[0].limit_concurrency == connections


def test_the_command_for_a_folder_names_the_same_model():
    options = ModelOptions(model="a b.safetensors", size=473, tiles=512, refine="half")
    words = shlex.split(label_options(options))
    assert tyro.cli(ModelOptions, args=words) == options
    assert label_options(ModelOptions()) == ""
