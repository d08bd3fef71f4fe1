"""How often loso was put to each fault and each hostile input, and what became of it, as a table.

Runs the tests that do it, every target of the fuzzers and a build whose ffmpeg is killed, counts,
and writes the table into docs/reliability.md between its markers. Exit code 1 where anything that
was tried did not hold, or left no report; the table then says so.

    python bench/reliability.py --seconds 10

Reports of tests that `--reports` names are taken as they are, so that one module can be run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability: begin -->", "<!-- reliability: end -->"
MODULES = ("faults", "cluster", "video_hostile", "fuzz", "limits", "decoder")
SOAKED = 200
"""Cells of the build whose ffmpeg is killed."""


class Said(NamedTuple):
    """A row of the table: what was done, and what holds where its test passes."""

    fault: str
    outcome: str


class Row(NamedTuple):
    """A row as it is written, and whether it held: None where nothing was tried."""

    fault: str
    tried: str
    outcome: str
    held: bool | None


WORDS = {
    # faults
    "a_full_disk_leaves_the_old_file": Said(
        "disk full while a file is written",
        "old file whole, no temporary file left, exit code 3, or 1 where a build lacks a cell",
    ),
    "a_limit_on_the_size_of_files_leaves_the_old_file": Said(
        "quota reached while a file is written", "the same"
    ),
    "a_folder_that_may_not_be_written_to_keeps_the_old_file": Said(
        "right to write taken away from a folder",
        "old file whole, exit code 2, or 1 where a build lacks a cell",
    ),
    "a_kill_between_write_and_rename_leaves_the_old_file": Said(
        "SIGKILL between write and rename",
        "old file whole; the next run writes the new one and sweeps up",
    ),
    "a_folder_that_is_removed_under_a_file_is_said": Said(
        "folder removed while a file in it is written", "refused, nothing half written"
    ),
    "a_folder_that_is_removed_between_files_is_said": Said(
        "folder removed between two of its files", "refused, or made again where it is a cache"
    ),
    "a_second_one_in_the_folder_is_refused_until_the_first_is_dead": Said(
        "second command in a folder in use",
        "refused with exit code 3; after a SIGKILL of the first it runs",
    ),
    "of_two_that_share_no_folder_the_last_one_wins": Said(
        "two commands that write one file at once", "the last one's file, whole"
    ),
    "a_full_disk_costs_the_log_its_last_lines_alone": Said(
        "disk full while the log of a run grows", "refused; the log lacks its last lines alone"
    ),
    "a_log_that_may_not_be_written_is_refused": Said(
        "folder of the log not to be written to", "refused before any work"
    ),
    # cluster
    "a_worker_killed_in_mid_cell_is_made_up_for": Said(
        "cluster: SIGKILL of a worker in mid-cell", "the same corpus, byte for byte"
    ),
    "a_late_worker_is_waited_for_and_takes_part": Said(
        "cluster: no worker yet when the build begins", "the build waits, then the same corpus"
    ),
    "a_worker_that_joins_in_mid_build_takes_cells_too": Said(
        "cluster: a worker joins in mid-build", "it takes part, the same corpus"
    ),
    "where_the_scheduler_is_lost_what_is_finished_is_kept": Said(
        "cluster: the scheduler is lost", "exit code 3; finished cells kept, the next run goes on"
    ),
    "a_client_that_ends_ends_the_cells_on_the_workers": Said(
        "cluster: Ctrl-C or SIGKILL of the client", "cells on the workers end, none left behind"
    ),
    "a_cell_that_kills_its_workers_fails_and_the_rest_is_kept": Said(
        "cluster: a cell that kills each of its workers", "it fails by name, the rest is kept"
    ),
    "a_worker_that_does_not_see_the_parts_is_told_once": Said(
        "cluster: a worker without the shared folder", "left out, said once"
    ),
    "a_worker_with_another_ffmpeg_measures_nothing": Said(
        "cluster: a worker with another ffmpeg", "left out, said why"
    ),
    "hardware_cells_go_to_workers_that_offer_it_and_can": Said(
        "cluster: hardware that few workers offer", "its cells go there alone"
    ),
    "a_worker_killed_while_it_trains_is_made_up_for": Said(
        "cluster: SIGKILL of a worker that trains", "the same weights, byte for byte"
    ),
    "a_worker_of_another_instruction_set_does_not_train": Said(
        "cluster: a worker of another instruction set", "left out, said why"
    ),
    "a_host_that_is_cut_off_is_made_up_for": Said(
        "cluster: a host cut off from the network", "the same corpus"
    ),
    # hostile
    "names_are_only_names_to_a_build": Said(
        "clip names that ffmpeg, a filter or a shell could misread, in one build",
        "each is only a name",
    ),
    "names_are_only_names_to_a_pair": Said("the same names, as a pair", "each is only a name"),
    "names_are_only_names_to_an_import": Said("the same names, of logs", "each is only a name"),
    "a_name_that_could_pass_for_a_line_is_refused": Said(
        "names with line ends or escapes", "refused in one line"
    ),
    "a_name_that_is_no_text_is_refused": Said("names that are no UTF-8", "refused in one line"),
    "a_name_that_no_file_can_have_is_refused": Said("names too long", "refused in one line"),
    "the_command_line_ends_in_one_line": Said(
        "such names on the command line", "one line, exit code 2, nothing written"
    ),
    "a_playlist_is_not_followed_whatever_its_name": Said(
        "playlists named as video, which lead to a file, a pipe or a server",
        "refused, nothing opened, no connection",
    ),
    "scripts_are_not_run": Said("scripts in the place of clips", "refused, not run"),
    "what_a_clip_says_of_itself_is_not_taken_for_ffmpegs_word": Said(
        "titles that imitate ffmpeg's words", "not taken for them"
    ),
    "what_is_no_file_is_refused_at_once": Said(
        "pipes, devices and folders in the place of clips and logs", "refused at once"
    ),
    "a_log_that_unpacks_without_end_is_refused": Said("a log that unpacks without end", "refused"),
    "a_clip_without_an_end_is_stopped_in_time": Said("a clip of a terabyte", "stopped in time"),
    "a_clip_that_grows_is_refused": Said("a clip that grows while it is read", "refused"),
    "a_clip_that_is_cut_off_is_remarked_or_refused": Said(
        "clips cut off", "refused, or measured as far as they go and remarked"
    ),
    "a_container_without_a_frame_is_refused": Said("containers without a frame", "refused"),
    "a_size_that_changes_midway_is_refused": Said("clips that change their size", "refused"),
    "a_clip_of_a_pair_that_changes_meanwhile_is_refused": Said(
        "a clip replaced while it is measured", "refused"
    ),
    "an_encoder_that_misbehaves_costs_its_own_cell": Said(
        "encoders that hang, crash, flood stderr, write rubbish or leave children",
        "that cell fails by name, others are kept, no process left",
    ),
    "an_encoder_that_codes_to_nothing_is_refused": Said("an encoder without output", "refused"),
    # limits
    "a_line_of_a_gigabyte_is_refused_before_it_is_read": Said(
        "a corpus line of 1 GiB", "refused within 64 MiB of memory"
    ),
    "a_long_line_after_others_costs_the_files_size_once": Said(
        "a line of 256 MiB after a good one", "refused within the file's size and 64 MiB"
    ),
    "a_packed_gigabyte_is_refused_at_two_hundred_times_its_size": Said(
        "1 GiB in a .jsonl.gz of 1 MiB", "refused at two hundred times its size"
    ),
    "a_packed_log_of_a_gigabyte_is_refused": Said("1 GiB in a log of 1 MiB", "refused at 256 MiB"),
    "a_table_of_one_value_again_and_again_is_refused_by_its_footer": Said(
        "140 million values in a Parquet file under 1 MiB", "refused by its footer, within 64 MiB"
    ),
    "a_text_without_end_is_refused_within_what_a_small_file_may_take": Said(
        "a text of 256 MiB in a Parquet file of some kilobytes",
        "refused; the process that decodes it may take half a gigabyte",
    ),
    "ten_thousand_columns_are_read": Said("10,000 columns", "read, within 20 times the file"),
    "a_key_of_its_own_in_each_row_is_refused": Said(
        "5,000 rows with a key of its own each", "refused"
    ),
    "a_table_of_a_hundred_thousand_columns_is_refused_by_its_header": Said(
        "100,000 columns of scores", "refused by the header"
    ),
    "a_million_sources_are_counted_and_not_held_out": Said(
        "1,000,000 sources", "checked within 2 GB; training on them refused"
    ),
    # decoder
    "pages_that_claim_to_be_endless_are_refused": Said(
        "Parquet pages that make polars ask for 2 EiB and end its process", "refused"
    ),
    "a_file_that_ends_its_process_is_refused": Said(
        "a crash, an error or a hang while Parquet is decoded", "refused, by every reader"
    ),
    "after_a_death_the_next_file_is_read": Said(
        "Parquet after such an end", "read by a new process"
    ),
}
"""By test, `test_` left out. Others of the same modules are oracles, or look at words alone."""


OTHERS = Said("other tests of the same modules", "passed")

NO_REPORT = "**no report**"
"""Of what ended before it wrote one: nothing is known to hold."""

NOT_TRIED = "not tried on this machine"
"""Of tests that were skipped, all of them: nothing is known to hold, nor not to."""


def cases_of(report: Path) -> list[ET.Element] | None:
    """Return the cases in a report of pytest, or None where there is none, or half of one."""
    try:
        return list(ET.parse(report).iter("testcase"))
    except (OSError, ET.ParseError):
        return None


def run_tests(reports: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Return how the cases of each test function ended, and the modules without a report."""
    ended: dict[str, Counter[str]] = {}
    silent = []
    for module in MODULES:
        report = reports / f"{module}.xml"
        path = f"tests/test_{module}.py"
        words = [sys.executable, "-m", "pytest", path, f"--junitxml={report}"]
        words += ["-p", "no:cacheprovider"]
        if not report.exists():
            subprocess.run(words, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        cases = cases_of(report)
        if cases is None:
            silent.append(path)
        for case in cases or ():
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            name = case.attrib["name"].partition("[")[0].removeprefix("test_")
            counts = ended.setdefault(name, Counter())
            counts[
                "failed" if kinds & {"failure", "error"} else kinds.pop() if kinds else "held"
            ] += 1
    return ended, silent


def row_of_cases(said: Said, counts: Counter[str]) -> Row:
    """Return the row of tests that ended so: what was skipped was not tried."""
    tried = counts["held"] + counts["failed"]
    if not tried:
        return Row(said.fault, "0", NOT_TRIED, None)
    notes = [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    notes += [f"**{counts['failed']} FAILED**"] if counts["failed"] else []
    return Row(said.fault, f"{tried}", "; ".join([said.outcome, *notes]), not counts["failed"])


def rows_of_tests(reports: Path) -> Iterator[Row]:
    """Yield a row for each fault of WORDS, and one for the other tests."""
    found, silent = run_tests(reports)
    for name, said in WORDS.items():
        counts = found.pop(name, None)
        if counts is None:
            yield Row(said.fault, "0", NO_REPORT, held=False)
        else:
            yield row_of_cases(said, counts)
    yield row_of_cases(OTHERS, sum(found.values(), Counter()))
    for path in silent:
        yield Row(f"all of {path}", "0", NO_REPORT, held=False)


def report_in(path: Path) -> dict[str, Any] | None:
    """Return the report that a program wrote, or None where it ended before."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def rows_of_fuzzing(folder: Path, seconds: float) -> Iterator[Row]:
    """Yield a row for each target."""
    out = folder / "fuzz.json"
    words = [sys.executable, "fuzz/explore.py", "--seconds", f"{seconds}", "--engine", "chance"]
    words += ["--seed", "1000000", "--faults", f"{folder / 'faults'}", "--json", f"{out}"]
    quiet = subprocess.DEVNULL
    subprocess.run(words, cwd=ROOT, check=False, stdout=quiet, stderr=quiet)
    targets = report_in(out)
    if targets is None:
        yield Row("mangled: all targets", "0", NO_REPORT, held=False)
        return
    for name, found in targets.items():
        taken = found["outcomes"].get("taken", 0)
        refused = sum(found["outcomes"].values()) - taken
        faults = len(found["faults"])
        outcome = f"{refused:,} refused by name, {taken:,} read or passed over, "
        outcome += f"{faults} other endings"
        held = not faults if found["tried"] else None
        yield Row(f"mangled: {name}", f"{found['tried']:,}", outcome, held)


def row_of_soaking(folder: Path) -> Row:
    """Return the row of a build whose ffmpeg is killed at random."""
    out = folder / "soak.json"
    words = [sys.executable, "bench/soak.py", "--cells", f"{SOAKED}", "--json", f"{out}"]
    ended = subprocess.run(words, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    fault = f"random ffmpeg children killed while {SOAKED} cells are built"
    found = report_in(out)
    if found is None:
        return Row(fault, "0", NO_REPORT, held=False)
    whole = "complete" if found["complete"] else "**not complete**"
    same = "the bytes of an undisturbed build" if found["same_bytes"] else "**other bytes**"
    outcome = (
        f"{whole} after {found['calls']} calls: {same}, {len(found['leftovers'])} temporary files "
        f"and {found['processes_left']} processes left, the longest zombie stood for "
        f"{found['longest_zombie_s']:g} s"
    )
    held = (True if found["kills"] else None) if ended.returncode == 0 else False
    return Row(fault, f"{found['kills']}", outcome, held)


def total_of(rows: Sequence[Row]) -> tuple[str, int]:
    """Return how many rows held, in words, and the exit code."""
    held, failed = (sum(row.held is so for row in rows) for so in (True, False))
    where = f"Python {platform.python_version()}, {platform.system()}"
    words = f"{held} of {len(rows)} rows held, {len(rows) - held - failed} not tried ({where})."
    return words, min(failed, 1)


def main() -> None:
    """Run all, write the table, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="for each target of the fuzzers"
    )
    parser.add_argument("--reports", type=Path, help="folder of pytest's reports; a new one else")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reliability-") as name:
        folder = Path(name)
        rows = [*rows_of_tests(asked.reports or folder), row_of_soaking(folder)]
        rows += rows_of_fuzzing(folder, asked.seconds)
    lines = ["| fault or input | how often tried | what happened |", "|---|---:|---|"]
    lines += [f"| {fault} | {tried} | {outcome} |" for fault, tried, outcome, _ in rows]
    total, code = total_of(rows)
    lines += ["", total]
    text = DOCUMENT.read_text(encoding="utf-8")
    block = "\n".join([BEGIN, *lines, END])
    new = re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.DOTALL)
    DOCUMENT.write_text(new, encoding="utf-8")
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
