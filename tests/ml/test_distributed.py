import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ml.distributed import SyncedBatchNorm, apart, gather, processes, share, synced, together

SCRIPT = Path(__file__).with_name("two_processes.py")


def loaded_script() -> Any:
    found = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


one_process = loaded_script()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What two processes that torchrun started came to."""
    path = tmp_path_factory.mktemp("together") / "found.safetensors"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    root = SCRIPT.parents[2]
    subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), str(path)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    return safetensors.torch.load_file(path)


@pytest.mark.parametrize("name", one_process.METHODS)
def test_two_processes_have_the_loss_the_gradients_and_the_memories_of_one(name: str, by_two: dict[str, Tensor]) -> None:
    alone = one_process.two_steps(name)
    theirs = {what.removeprefix(f"{name}: "): value for what, value in by_two.items() if what.startswith(f"{name}: ")}
    assert theirs.keys() == alone.keys()
    for what, value in alone.items():
        torch.testing.assert_close(theirs[what], value, rtol=1e-5, atol=1e-5, msg=lambda text, at=what: f"{at}: {text}")


@pytest.mark.parametrize("name", one_process.OTHERS)
def test_so_have_they_normalised_maps_and_gradients_of_what_was_gathered(name: str, by_two: dict[str, Tensor]) -> None:
    for what, value in one_process.OTHERS[name]().items():
        torch.testing.assert_close(by_two[f"{name}: {what}"].to(value.dtype), value, rtol=1e-5, atol=1e-5)


def test_alone_nothing_is_shared_or_gathered() -> None:
    rows = torch.rand(4, 3)
    assert processes() == 1
    assert share(rows) is rows and gather(rows) is rows
    order = torch.tensor([2, 0, 3, 1])
    assert together(apart(rows, order), order) is rows


def test_alone_a_synced_batch_norm_is_a_batch_norm() -> None:
    torch.manual_seed(0)
    plain, maps = nn.Sequential(nn.BatchNorm2d(3)), torch.rand(4, 3, 5, 5)
    expected = plain(maps)
    plain[0].reset_running_stats()
    assert isinstance(synced(plain)[0], SyncedBatchNorm)  # type: ignore[index]
    torch.testing.assert_close(plain(maps), expected)
