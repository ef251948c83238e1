import socket

import pytest

from fewseg.cli import main
from fewseg.cli.serve import _listen


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr("fewseg.cli.serve.find_spec", lambda name: None)
    assert main(["serve"]) == 1
    assert "pip install 'fewseg[serve]'" in capsys.readouterr().err


def test_a_port_in_use_is_told_before_a_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another with --port" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--host", "300.1.2.3"], ["--port", "70000"], ["--upload-mib", "0"]])
def test_wrong_options_are_told(words, capsys):
    assert main(["serve", "--model", "no_such_recipe", *words]) == 1
    assert capsys.readouterr().err.startswith("fewseg:")


def test_the_server_is_on_loopback_by_default():
    listener = _listen("127.0.0.1", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
