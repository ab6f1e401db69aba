"""sched_plot.py CSV_DIR IMG_DIR - draw what bench/sched printed, as small SVG files."""
import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update({"svg.hashsalt": "rerank", "svg.fonttype": "none",
                            "font.size": 9, "axes.grid": True,
                            "grid.alpha": 0.3, "axes.spines.top": False,
                            "axes.spines.right": False})
STYLE = {"window 10 ms, padded": ("#999999", ":"), "FIFO, padded": ("#666666", "--"),
         "FIFO, length groups": ("#c0792a", "--"), "FIFO, ragged": ("#c0392b", "-"),
         "fair, ragged": ("#2980b9", "-"), "ours": ("#117a43", "-"),
         "ours, patience 10 ms": ("#8e44ad", "-."), "ours, with deadlines": ("#117a43", ":")}


def rows(folder, name):
    with open(folder / f"{name}.csv", newline="") as f:
        return list(csv.DictReader(f))


def legend_above(fig, ax, columns):
    fig.legend(*ax.get_legend_handles_labels(), loc="lower center", ncol=columns, fontsize=8,
               bbox_to_anchor=(0.5, 1.0), frameon=False)


def save(fig, path):
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(fig)
    print(path)


def policies(folder, img):
    data = rows(folder, "policies")
    kinds = ["mixed", "bursty", "equal", "small"]
    fig, axes = plt.subplots(3, 4, figsize=(12, 7.5), sharex=True)
    for col, kind in enumerate(kinds):
        for row, (what, label) in enumerate([("p50_ms", "p50, ms"), ("p99_ms", "p99, ms"),
                                             ("goodput", "answered within 250 ms")]):
            ax = axes[row][col]
            for policy, (color, dash) in STYLE.items():
                line = [r for r in data if r["traffic"] == kind and r["policy"] == policy]
                ax.plot([float(r["x"]) for r in line], [float(r[what]) for r in line], dash,
                        color=color, label=policy, lw=1.4)
            if row < 2:
                ax.set_yscale("log")
            if row == 0:
                ax.set_title(kind)
            if row == 2:
                ax.set_xlabel("load (1 = all the device can do)")
            if col == 0:
                ax.set_ylabel(label)
    legend_above(fig, axes[0][0], 4)
    save(fig, img / "sched-policies.svg")


def knobs(folder, img):
    data = rows(folder, "knobs")
    panels = [("waste", "gpu", "mixed", "start's share of a batch (waste)"),
              ("crowd", "gpu", "mixed", "jobs that double a batch (crowd; 0 = none)"),
              ("lead", "gpu", "mixed", "packed ahead by, us (lead)"),
              ("wait", "gpu", "mixed", "patience, us; mixed traffic"),
              ("wait", "gpu", "bunches", "patience, us; bunches of 16"),
              ("wait", "slow start", "bunches", "patience, us; bunches, start 4 ms")]
    fig, axes = plt.subplots(2, 3, figsize=(11, 5.6))
    for ax, (knob, device, traffic, label) in zip(axes.flat, panels):
        for load, color in zip(["0.3", "0.6", "0.8", "0.95"],
                               ["#a8d5ba", "#5fb27f", "#117a43", "#0b3d22"]):
            line = [r for r in data if r["experiment"] == knob and r["device"] == device
                    and r["traffic"] == traffic and r["policy"] == f"load {load}"]
            x = range(len(line))
            ax.plot(x, [float(r["p50_ms"]) for r in line], "-o", ms=3, color=color,
                    label=f"p50, load {load}")
            ax.plot(x, [float(r["p99_ms"]) for r in line], ":s", ms=3, color=color,
                    label=f"p99, load {load}")
            ax.set_xticks(list(x), [f"{float(r['x']):g}" for r in line])
        ax.set_yscale("log")
        ax.set_xlabel(label)
        ax.set_ylabel("ms")
    legend_above(fig, axes[0][0], 4)
    save(fig, img / "sched-knobs.svg")


def fleet(folder, img):
    data = rows(folder, "fleet")
    fig, ax = plt.subplots(figsize=(6, 3.4))
    for name, color in [("random", "#c0392b"), ("round robin", "#2980b9"),
                        ("two choices by tokens", "#8e44ad"),
                        ("two choices by requests", "#117a43")]:
        line = [r for r in data if r["policy"] == name]
        x = [float(r["x"]) for r in line]
        ax.plot(x, [float(r["p50_ms"]) for r in line], "-o", ms=3, color=color, label=f"{name}, p50")
        ax.plot(x, [float(r["p99_ms"]) for r in line], ":s", ms=3, color=color, label=f"{name}, p99")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("replicas, each at load 0.8")
    ax.set_ylabel("ms")
    legend_above(fig, ax, 2)
    save(fig, img / "sched-fleet.svg")


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    policies(source, target)
    knobs(source, target)
    fleet(source, target)
