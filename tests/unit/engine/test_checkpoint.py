"""Checkpoints: what goes in comes out, damage is reported, no file runs code, no disk loses the old file."""

import errno
import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fewseg.data.folds import ClassSplit
from fewseg.engine.checkpoint import (
    Checkpoint,
    check_split,
    load_checkpoint,
    load_optimiser,
    load_tensors,
    model_tensors,
    read_checkpoint,
    save_checkpoint,
    split_json,
)
from fewseg.methods.scl import SCLPFENetConfig

NAMES = {i: f"class {i}" for i in range(1, 7)}
SPLIT = ClassSplit(name="six", fold=1, base=(1, 2, 5, 6), novel=(3, 4), class_names=NAMES)


@pytest.fixture
def saved(tmp_path, build, config):
    """A method and the file it was saved to."""
    method, path = build(), tmp_path / "model.safetensors"
    about = Checkpoint(
        config=config,
        recipe="tiny",
        dataset="six",
        class_split=split_json(SPLIT),
        training={"step": 7, "best": 0.25, "config": {"type": "TrainConfig"}},
    )
    save_checkpoint(path, method, about)
    return method, path


def test_everything_that_was_said_is_read_again(saved, config):
    method, path = saved
    found = read_checkpoint(path)
    assert (found.config, found.recipe, found.dataset) == (config, "tiny", "six")
    assert found.training == {"step": 7, "best": 0.25, "config": {"type": "TrainConfig"}}
    assert found.class_split["novel"] == [3, 4]
    assert found.backbone_digest == method.backbone.digest()
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_a_loaded_method_has_the_same_weights_in_eval_mode(saved):
    method, path = saved
    loaded, about = load_checkpoint(path)
    assert not loaded.training
    assert about.recipe == "tiny"
    for key, value in method.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_frozen_backbone_stays_out_of_the_file_unless_asked_for(saved, tmp_path, config):
    method, path = saved
    with safe_open(path, "pt") as file:
        assert not [key for key in file.keys() if "backbone" in key]  # noqa: SIM118
    whole = tmp_path / "whole.safetensors"
    with torch.no_grad():
        next(method.backbone.parameters()).add_(1)  # weights that no config can make again
    save_checkpoint(whole, method, Checkpoint(config=config), whole=True)
    loaded, about = load_checkpoint(whole)
    assert about.backbone_digest == ""
    assert loaded.backbone.digest() == method.backbone.digest()


def test_a_trained_backbone_goes_into_the_file(build, config):
    trainable = replace(config.backbone, trainable=True)
    method = build(backbone=trainable)
    assert set(model_tensors(method)) == set(method.state_dict())


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_file_is_reported(saved, kept):
    _, path = saved
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_checkpoint, load_checkpoint):
        with pytest.raises(
            ValueError, match=r"model.safetensors is not a complete safetensors file .*truncated"
        ):
            read(path)


def test_a_pickle_is_refused_and_its_code_does_not_run(malicious):
    path, mark = malicious
    for read in (read_checkpoint, load_checkpoint):
        with pytest.raises(ValueError, match=r"fewseg never opens pickles .*import-checkpoint"):
            read(path)
    assert not mark.exists()


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*gone.safetensors"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path)  # a folder


def test_tensors_of_another_program_are_reported(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no fewseg config: it was not written by fewseg"):
        read_checkpoint(path)


def edited(path, change):
    """Writes the file's tensors again with another header."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = json.loads(file.metadata()["fewseg"])
    save_file(tensors, path, metadata={"fewseg": change(text)})


def test_a_newer_schema_asks_for_an_update(saved):
    _, path = saved
    edited(path, lambda text: json.dumps(text | {"schema": 99}))
    with pytest.raises(ValueError, match=r"schema 99, this version reads up to 1: update fewseg"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "header", ["{}", "[]", "[" * 100_000, "not JSON", '{"schema": "1"}', '{"schema": 1}']
)
def test_a_header_that_is_not_ours_is_reported(saved, header):
    _, path = saved
    edited(path, lambda text: header)
    with pytest.raises(ValueError, match=r"model.safetensors has a header that fewseg cannot read"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": None}, "training is no object"),
        ({"training": [1]}, "training is no object"),
        ({"class_split": "six"}, "class_split is neither null nor an object"),
        ({"class_split": {}}, "class_split without a right name, fold, base, novel"),
        ({"class_split": {"name": "six", "fold": 1, "novel": [3]}}, "class_split without a right base"),
        (
            {"class_split": {"name": 6, "fold": "1", "base": [[1]], "novel": 3}},
            "without a right name, fold, novel, base",
        ),
        ({"recipe": None}, "recipe is no string"),
        ({"backbone_digest": 7}, "backbone_digest is no string"),
        ({"config": 5}, "config of no method"),
        ({"config": {"type": "TrainConfig"}}, "config of no method"),
    ],
)
def test_an_edited_header_is_reported(saved, change, message):
    _, path = saved
    edited(path, lambda text: json.dumps(text | change))
    with pytest.raises(ValueError, match=rf"header that fewseg cannot read \(.*{message}.*it was edited"):
        read_checkpoint(path)


def test_a_config_of_more_than_the_file_holds_is_refused_before_memory_is_taken(saved):
    _, path = saved

    def enlarge(text):
        text["config"]["channels"] = 60_000
        return json.dumps(text)

    edited(path, enlarge)
    with pytest.raises(
        ValueError, match=r"by the config in the file it must be .*60000.*: the file was edited"
    ):
        load_checkpoint(path)


def test_tensors_of_another_method_or_width_are_reported(tmp_path, build, config):
    path = tmp_path / "model.safetensors"
    scl = SCLPFENetConfig(backbone=config.backbone, channels=8, prior=config.prior, scales=config.scales)
    save_checkpoint(path, build(), Checkpoint(config=scl))
    with pytest.raises(ValueError, match=r"does not fit SCLPFENet"):
        load_checkpoint(path)
    save_checkpoint(path, build(channels=4), Checkpoint(config=config))
    with pytest.raises(ValueError, match=r"does not fit PFENet: mid_support"):
        load_checkpoint(path)


def test_missing_and_unexpected_tensors_are_named(saved, build):
    _, path = saved
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["model.extra"] = tensors.pop("model.trunk.reduce.0.weight")
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"missing \['trunk.reduce.0.weight'\], unexpected \['extra'\]"):
        load_tensors(build(), path)
    tensors["model.trunk.reduce.0.weight"] = tensors["model.extra"].clone()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"missing \[\], unexpected \['extra'\]"):
        load_tensors(build(), path)


def test_another_trunk_than_the_one_trained_on_is_reported(tmp_path, build, config):
    path = tmp_path / "model.safetensors"
    method = build()
    with torch.no_grad():
        next(method.backbone.parameters()).add_(1)
    save_checkpoint(path, method, Checkpoint(config=config))
    with pytest.raises(ValueError, match=r"trained on a backbone with digest \w{12}, but None gives \w{12}"):
        load_checkpoint(path)


def test_a_trunk_that_moved_may_be_named(tmp_path, build, config):
    method, path = build(), tmp_path / "model.safetensors"
    save_checkpoint(path, method, Checkpoint(config=config))
    weights = tmp_path / "trunk.safetensors"
    save_file({k: v.contiguous() for k, v in method.backbone.trunk.state_dict().items()}, weights)
    loaded, about = load_checkpoint(path, backbone_weights=str(weights))
    assert loaded.config.backbone.weights == str(weights)
    assert about.config == config


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_keeps_the_old_file(saved, monkeypatch, error):
    method, path = saved
    before = path.read_bytes()

    def half(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(type(error), match="No space left" if isinstance(error, OSError) else None):
        save_checkpoint(path, method, Checkpoint(config=method.config))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_optimiser_state_comes_back_and_its_absence_is_reported(saved, build, tmp_path):
    _, without = saved
    method = build()
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad])
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, method, Checkpoint(config=method.config), optimiser)
    other = torch.optim.AdamW([p for p in build().parameters() if p.requires_grad])
    load_optimiser(other, path)
    ours, theirs = optimiser.state_dict()["state"], other.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index, slots in ours.items():
        for slot, value in slots.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[index][slot])), slot
    with pytest.raises(ValueError, match=r"holds no optimiser state: .*last\.safetensors"):
        load_optimiser(other, without)
    with safe_open(path, "pt") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    for key, shape in (("0.exp_avg", (1, 2)), ("0.other", (1,)), ("0.step", (2,)), ("99999.step", ())):
        save_file(tensors | {f"optimizer.{key}": torch.zeros(shape)}, path, metadata=header)
        with pytest.raises(ValueError, match=r"last\.safetensors has a state of .* that does not fit AdamW"):
            load_optimiser(other, path)


def test_a_checkpoint_is_tested_on_its_own_fold_only(config, tmp_path):
    about = Checkpoint(config=config, class_split=json.loads(json.dumps(split_json(SPLIT))))
    check_split(about, SPLIT, tmp_path)
    other = replace(SPLIT, fold=0, base=(3, 4, 5, 6), novel=(1, 2))
    with pytest.raises(
        ValueError, match=r"trained on six fold 1, the test is on six fold 0; classes \[1, 2\]"
    ):
        check_split(about, other, tmp_path)
    same_name = replace(SPLIT, base=(1, 2), novel=(5, 6))
    with pytest.raises(ValueError, match=r"classes \[5, 6\] of the test were trained on"):
        check_split(about, same_name, tmp_path)
    with pytest.raises(ValueError, match="the test is on seven fold 1: evaluate it on its own fold"):
        check_split(about, replace(SPLIT, name="seven"), tmp_path)
    with pytest.raises(ValueError, match="the test is on six fold 0: evaluate it on its own fold"):
        check_split(about, replace(SPLIT, fold=0), tmp_path)


def test_where_nobody_knows_the_split_nothing_is_refused_but_it_is_said(config, caplog):
    with caplog.at_level(logging.WARNING):
        check_split(Checkpoint(config=config), SPLIT, Path("imported.safetensors"))
    assert caplog.messages == [
        "imported.safetensors does not say which classes it was trained on: make sure that [3, 4] of six "
        "fold 1 are not among them"
    ]
    assert split_json(None) is None
