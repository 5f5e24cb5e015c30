"""Train the two cord networks on painted sections alone and export them.

Run ``python tools/train_cord_network/train.py`` (needs torch and onnx besides qcord). Same seed, same samples;
weights agree to rounding between machines.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from samples import COARSE, FINE, draw_samples
from torch.utils.data import DataLoader, Dataset
from unet import UNet

from qcord.anatomy.network import View

WIDTHS = {"near": (16, 32, 48, 64), "far": (16, 32, 32, 48)}
CYCLES = {"near": ((3000, 4e-3), (1500, 1.5e-3)), "far": ((1200, 4e-3),)}
"""Steps and peak learning rate of each cycle."""
SCENES = 8
SNAPSHOT = 500
SEED = 20240611
WEIGHTS = Path(__file__).resolve().parents[2] / "src/qcord/anatomy"


class Batches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches by number: each is a function of its number alone, so that workers never change the samples."""

    def __init__(self, view: View, seed: int, steps: int) -> None:
        self.view, self.seed, self.steps = view, seed, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, self.view is FINE, index])
        pairs = [draw_samples(rng, self.view) for _ in range(SCENES)]
        return tuple(torch.from_numpy(np.concatenate([p[i] for p in pairs])) for i in (0, 1))


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy, which keeps the share honest, plus soft Dice over the batch, which keeps small cords."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    share = torch.sigmoid(logits)
    dice = 1 - (2 * (share * target).sum() + 1) / ((share**2).sum() + (target**2).sum() + 1)
    return 5 * entropy + dice


def save(net: UNet, view: View, folder: Path) -> None:
    """Write the network as ONNX, batch normalisation folded in."""
    model = torch.nn.Sequential(net, torch.nn.Sigmoid()).eval()
    free = {0: "n", 2: "x", 3: "y"}
    with torch.no_grad():
        torch.onnx.export(
            model,
            (torch.zeros(1, 2, view.size, view.size),),
            str(folder / f"cord_{view.name}.onnx"),
            opset_version=17,
            dynamo=False,
            dynamic_axes={"image": free, "share": free},
            input_names=["image"],
            output_names=["share"],
        )
    if folder != WEIGHTS:
        torch.save(net.state_dict(), folder / f"{view.name}.pt")
    net.train()


def train(net: UNet, view: View, cycle: int, workers: int, folder: Path) -> None:
    """Train one network for one cycle of the learning rate, on samples of its own."""
    steps, peak = CYCLES[view.name][cycle]
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps + 1, pct_start=0.1)
    began, shown = time.time(), 0.0
    source = DataLoader(Batches(view, SEED + cycle, steps), batch_size=None, num_workers=workers, prefetch_factor=8)
    for step, (inputs, targets) in enumerate(source):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(inputs.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % SNAPSHOT == SNAPSHOT - 1:
            save(net, view, folder)
        shown = float(loss.detach()) if step == 0 else 0.98 * shown + 0.02 * float(loss.detach())
        if step % 50 == 0:
            print(
                f"{view.name} {step}/{steps} loss {shown:.4f} {(time.time() - began) / (step + 1):.3f} s/step",
                flush=True,
            )
    save(net, view, folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--view", choices=["near", "far", "both"], default="both")
    parser.add_argument("--after", type=Path, help="state after the first cycle, to go on from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    for view in (FINE, COARSE):
        if given.view not in {view.name, "both"}:
            continue
        torch.manual_seed(SEED)
        net = UNet(WIDTHS[view.name]).to(memory_format=torch.channels_last)
        if given.after is not None:
            net.load_state_dict(torch.load(given.after, weights_only=True))
        for cycle in range(given.after is not None, len(CYCLES[view.name])):
            train(net, view, cycle, given.workers, given.folder)


if __name__ == "__main__":
    main()
