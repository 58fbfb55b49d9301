"""One torch thread for all tests: the products are small, and other work runs beside. The command as a fixture."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import cli.main

torch.set_num_threads(1)


@pytest.fixture
def nmcmc(tmp_path, monkeypatch, capsys):
    """nmcmc(words...) in a folder of its own: code, out, err, and the object of --json."""
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["nmcmc", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main.main()
        out, err = capsys.readouterr()
        assert ended.value.code == code, err
        data = json.loads(out.splitlines()[-1]) if "--json" in words and code == 0 else None
        return SimpleNamespace(out=out, err=err, json=data)

    return call
