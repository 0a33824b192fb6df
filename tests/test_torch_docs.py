"""The code of the pages on PyTorch is run as it stands, with smaller numbers where it trains."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
SMALLER = {"50_000": "300", "20_000": "160", "1_000_000": "200", "500_000": "100"}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def code_of(page: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    return "\n".join(blocks)


@pytest.mark.parametrize("page", ["pytorch.md", "loops.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(code_of(page), space)
    if page == "loops.md":
        after, log = space["make_subject"](0).advance(20)
        assert log.terminated.sum() == 2
        after.fork()
    else:
        assert capsys.readouterr().out


def test_the_code_for_stable_baselines3_runs(tmp_path, monkeypatch):
    """The first block saves a model, so it comes last."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    code = code_of("sb3.md")
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    code = code.replace('folder="runs/cartpole"', 'folder="runs/cartpole", replicates=4')
    assert "replicates=4" in code
    first, rest = code.split("import regrow.sb3", 1)
    assert "save_replay_buffer" in first
    exec("import regrow.sb3" + rest + first, {})
    assert (tmp_path / "runs" / "cartpole" / "diagnosis" / "verdict.json").is_file()
    assert (tmp_path / "cured.zip").is_file()


@pytest.mark.parametrize("page", ["sb3.md", "pytorch.md", "loops.md", "nnx.md"])
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert (DOCS / link).resolve().exists(), link
