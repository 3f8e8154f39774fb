#!/usr/bin/env python3
"""Runs everything that could lose an event, for about so many minutes, and writes docs/guarantees.md
from what each part has noted.

    tests/torture.py MINUTES       run, and write the page if all parts have passed
    tests/torture.py long [NAME]   the long runs, or one of them, and write the page
    tests/torture.py               write the page again from the last runs
    tests/torture.py cut FIGURES   add up what the parts, in their smallest sizes, have noted there within
                                   `make test`; fails where one has noted nothing

What a part says goes to target/torture/PART.log, its figures to target/torture/figures/PART.jsonl: a
line for each run, by tests/it/figures.rs. All parts together are ended when they take twice the
minutes. Long runs take hours and have no bound; what they have shown is kept until they run again.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORTURE = ROOT / "target/torture"
FIGURES = TORTURE / "figures"
LONG = TORTURE / "long"
TEST = "cargo test --workspace --locked"

# What a table begins with.
COLUMNS = ["run", "seconds", "runs", "runs there are", "events of each", "worlds", "events", "faults", "kills", "lost", "duplicated"]

# Name, title, what it does, its settings as a function of the minutes, and what is run.
PARTS = [
    (
        "simulation", "Simulated worlds",
        "The real engine on simulated time, with every fault at every boundary; each seed replays exactly.",
        lambda minutes: {"EVENTFERRY_SEEDS": 300 * minutes},
        f"{TEST} --lib -- --nocapture simulation",
    ),
    (
        "crash", "kill -9 under load",
        "The real binary between the local clouds, killed again and again, 0.3 to 2 s after each start; and one of three replicas, while order is watched at the far side.",
        lambda minutes: {"EVENTFERRY_CRASH_KILLS": max(1, 3 * minutes // 5), "EVENTFERRY_CRASH_EVENTS": 300 * minutes},
        f"{TEST} --test it -- --nocapture crash:: scale_out::",
    ),
    (
        "kill_points", "kill -9 at every point of an event's way",
        "From every source to every sink, killed between two steps, with the state in a file, in Redis and in Blob Storage. All that was under way comes again; "
        "with `dedup`, what was known as delivered does not. Where both ends keep an order, so do the first copies.",
        # Shares no factor with the number of pairs, which the test looks at.
        lambda minutes: {"EVENTFERRY_KILL_POINTS": 1 if minutes >= 60 else 6},
        f"{TEST} --test it -- --nocapture kill_points::",
    ),
    (
        "network", "The network, and clouds that go away",
        "A TCP proxy before the source of one route and the sink of another. An answer that is lost is a send "
        "that failed, and may be a duplicate; a route with `dedup` takes no repeat of its source. "
        "*Struck* is what the proxies did: bytes that they held up, answers that they cut, connections that they let "
        "fall silent, reset or refused. *Recovered* is the time from the end of the fault until all that was fed had arrived.",
        lambda minutes: {"EVENTFERRY_NETWORK": "all"},
        f"{TEST} --test it -- --nocapture network::",
    ),
    (
        "redis", "Redis killed under routes",
        "Keys and checkpoints in a real Redis that is killed and started again: under load between an event hub and a queue, "
        "and while the queue is away, when no checkpoint may lie beyond what has arrived. "
        "*Recovered* is the time from when it was back until all that was fed before had arrived.",
        lambda minutes: {},
        f"{TEST} --test it -- --nocapture redis:: k_while_the_store_of_keys_is_away_events_wait_or_go_on_as_their_route_says",
    ),
    (
        "sharing", "Partitions that move",
        "Replicas share a hub's partitions through Redis and Blob Storage, while they come, go and die.",
        lambda minutes: {},
        f"{TEST} --test it -- --nocapture sharing:: --skip foreign",
    ),
    (
        "state", "The state store in trouble",
        "A disk that is full or read-only, a torn file, a file of another version, and a clock that jumps by a day.",
        lambda minutes: {},
        f"{TEST} --test it -- state_faults::",
    ),
    (
        "hostile", "Hostile messages",
        "Nearly six hundred in all, into each source those that its service carries, at least two hundred: each is delivered or parked, and each of the healthy messages between them arrives.",
        lambda minutes: {},
        f"{TEST} --test it -- --nocapture hostile::",
    ),
    (
        "acceptance", "The defects of others",
        "Twelve failures that other systems have shipped, each as a test.",
        lambda minutes: {},
        f"{TEST} --test it -- acceptance::",
    ),
    (
        "model", "The protocol in a model",
        "Every order of the steps of claim, delivery, commit, settlement and checkpoint, with two replicas and crashes.",
        lambda minutes: {},
        f"{TEST} --test protocol",
    ),
    (
        "soak", "A steady load, a fault every ten seconds",
        "One daemon with `dedup` in Redis, 60 events a second. A fault every ten seconds, or when all has arrived that was fed before the last one. In turn: kill -9 (in the first third), resets, Redis "
        "killed, sinks unreachable, hub restarted, half-open connections, throttling, 10 kB/s. Each has to strike "
        "something: *connections struck* fell silent, were reset or refused. Memory is that of the process, in the first and the last quarter of the time without kills.",
        lambda minutes: {"EVENTFERRY_SOAK_SECONDS": 10 * minutes},
        f"{TEST} --test it -- --nocapture soak::",
    ),
]

# Name, title, settings and what is run. In a build that is optimised where it is the engine alone.
LONG_RUNS = [
    ("soak", "An hour of the steady load", {"EVENTFERRY_SOAK_SECONDS": 3600}, f"{TEST} --test it -- --nocapture soak::"),
    (
        "simulation", "Two hundred thousand worlds", {"EVENTFERRY_SEEDS": 200_000, "EVENTFERRY_FIRST_SEED": 800_000},
        "cargo test --config profile.dev.package.eventferry.opt-level=2 --workspace --locked --lib -- --nocapture no_seed_breaks",
    ),
    (
        "kill_points", "kill -9 at every point, on every way", {"EVENTFERRY_KILL_POINTS": 1},
        f"{TEST} --test it -- --nocapture kill_points::",
    ),
    (
        "dedup", "Ten million keys in the embedded store", {},
        f"{TEST} --test it -- --ignored --nocapture dedup::scale",
    ),
]


def say(settings, command):
    return " ".join([*(f"{key}={value}" for key, value in settings.items()), command])


def begin(name, settings, command, figures, seconds):
    """Answers whether it has passed, and how many seconds it took."""
    begun = time.monotonic()
    print(f"torture: {name}: {say(settings, command)}", flush=True)
    settings = {key: str(value) for key, value in settings.items()} | {"EVENTFERRY_FIGURES": str(figures)}
    with open(TORTURE / f"{name}.log", "w") as log:
        part = subprocess.Popen(
            command.split(), cwd=ROOT, stdout=log, stderr=log, start_new_session=True, env=os.environ | settings,
        )
        try:
            is_well = part.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(part.pid, 9)
            part.wait()
            is_well = False
    took = round(time.monotonic() - begun)
    print(f"torture: {name}: {'passed' if is_well else 'FAILED'} after {took} s", flush=True)
    return is_well, took


def run(minutes):
    begun = {"minutes": minutes, "date": str(datetime.date.today()), "commit": commit()}
    FIGURES.mkdir(parents=True, exist_ok=True)
    for old in FIGURES.glob("*.jsonl"):
        old.unlink()
    if not begin("build", {}, f"{TEST} --no-run", FIGURES, None)[0]:
        return ["build"]
    until = time.monotonic() + 2 * 60 * minutes
    failed = []
    for name, _, _, settings, command in PARTS:
        left = max(1, until - time.monotonic())
        is_well, took = begin(name, settings(minutes), command, FIGURES, left)
        if not is_well:
            failed.append(name)
            continue
        file = FIGURES / f"{name}.jsonl"
        if not file.exists():
            # What notes nothing has at least passed.
            said = (TORTURE / f"{name}.log").read_text()
            tests = sum(int(count) for count in re.findall(r"test result: ok\. (\d+) passed", said))
            file.write_text(json.dumps({"run": command.split()[-1], "tests passed": tests, "seconds": took}) + "\n")
    (TORTURE / "run.json").write_text(json.dumps(begun))
    return failed


def run_long(wanted):
    LONG.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, _, settings, command in LONG_RUNS:
        if wanted and name not in wanted:
            continue
        (LONG / f"{name}.jsonl").unlink(missing_ok=True)
        when = {"date": str(datetime.date.today()), "commit": commit()}
        is_well, _ = begin(name, settings, command, LONG, None)
        if not is_well:
            (LONG / f"{name}.jsonl").unlink(missing_ok=True)
            failed.append(name)
        else:
            (LONG / f"{name}.json").write_text(json.dumps(when))
    return failed


def commit():
    """What is run: asked before it is, because the tree may go on meanwhile."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    is_changed = git("status", "--porcelain", "--", ".", ":!docs/guarantees.md")
    return git("rev-parse", "--short=10", "HEAD") + (" with changes" if is_changed else "")


def machine():
    def first(path, word):
        lines = (line for line in pathlib.Path(path).read_text().splitlines() if line.startswith(word))
        return next(lines, ":").split(":", 1)[1].strip()

    memory = int(first("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    model = first("/proc/cpuinfo", "model name")
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def shown(value):
    if isinstance(value, float):
        value = int(value) if value.is_integer() else round(value, 1)
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows):
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = [key for key in COLUMNS if key in keys] + [key for key in keys if key not in COLUMNS]
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def totals(rows_of):
    every = [row for rows in rows_of.values() for row in rows]
    return {
        "worlds": rows_of["simulation"][0]["worlds"],
        "lost": sum(row.get("lost", 0) for row in every),
        "kills": sum(row.get("kills", row.get("runs", 0)) for row in every),
        "events": sum(row.get("events", row.get("runs", 0) * row.get("events of each", 0)) for row in every),
    }


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def cut(figures):
    """Answers the parts that have noted nothing, or a loss."""
    noting = [name for name, _, _, _, command in PARTS if "--nocapture" in command]
    silent = [name for name in noting if not (figures / f"{name}.jsonl").exists()]
    if silent:
        return silent
    rows_of = {name: rows(figures / f"{name}.jsonl") for name in noting}
    print("torture: a cut of it:", ", ".join(f"{shown(count)} {what}" for what, count in totals(rows_of).items()))
    return [name for name, noted in rows_of.items() if any(row.get("lost") for row in noted)]


def page():
    if not (TORTURE / "run.json").exists():
        print("torture: kept for the page, which `make torture` writes")
        return
    run = json.loads((TORTURE / "run.json").read_text())
    parts, rows_of = [], {}
    for name, title, text, settings, command in PARTS:
        rows_of[name] = rows(FIGURES / f"{name}.jsonl")
        command = say(settings(run["minutes"]), command)
        parts.append(f"## {title}\n\n{text}\n\n```sh\n{command}\n```\n\n{table(rows_of[name])}\n")
    long = []
    for name, title, settings, command in LONG_RUNS:
        if not (LONG / f"{name}.json").exists():
            continue
        when = json.loads((LONG / f"{name}.json").read_text())
        how = f"Run on {when['date']} at commit {when['commit']}."
        long.append(f"### {title}\n\n{how}\n\n```sh\n{say(settings, command)}\n```\n\n{table(rows(LONG / f'{name}.jsonl'))}\n")
    if long:
        parts.append("## Long runs\n\n`tests/torture.py long` repeats them, in some hours.\n")
        parts += long
    all = totals(rows_of)
    head = f"""# What was shown

[What is promised](guarantee.md) says what eventferry guarantees, and why. This page is the evidence, written by `make torture` from what its parts have noted: **{shown(all["events"])} events through real processes and {shown(all["worlds"])} simulated worlds, {shown(all["kills"])} kills, {shown(all["lost"])} events lost.** What is not guaranteed stands [there](guarantee.md#what-is-not-promised).

Run on {run["date"]} for about {run["minutes"]} minutes (`make torture`, with `MINUTES={run["minutes"]}`), at commit {run.get("commit", "unknown")}, in a build with debug assertions, on {machine()}. The clouds are LocalStack, Azurite and the Event Hubs emulator on the same machine; nothing here was run against AWS or Azure. A part's command repeats it.
"""
    (ROOT / "docs/guarantees.md").write_text("\n".join([head, *parts]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cut", figures]:
            sys.exit(f"torture: nothing was shown by {', '.join(failed)}" if (failed := cut(pathlib.Path(figures))) else 0)
        case ["long", *wanted]:
            failed = run_long(wanted)
        case [minutes]:
            failed = run(int(minutes))
        case _:
            failed = []
    if failed:
        sys.exit(f"torture: failed: {', '.join(failed)}; see {TORTURE}")
    page()
