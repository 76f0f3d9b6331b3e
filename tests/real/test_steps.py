"""`srun` in a session's containers: tasks through the agents, and what is left of them."""

from __future__ import annotations

import pytest

from tests.real.ground import ACROSS, Ground, await_true, fresh_name

pytestmark = pytest.mark.real

JOB = (*ACROSS, "-N", "2", "--env-profile", "slurm", "--run-on", "main")
WHO = (
    "echo $SLURM_PROCID/$SLURM_NTASKS $SLURM_LOCALID $SLURM_NODEID $SLURMD_NODENAME "
    "$SLURM_STEP_NODELIST $SLURM_TASKS_PER_NODE $(hostname) $TOLD"
)
FILES = """
exec 2>&1
cd /tmp
srun --output=own-%t.txt bash -c 'echo task $SLURM_PROCID'
srun --output=both.txt --label bash -c 'echo task $SLURM_PROCID'
srun -w sub1 bash -c 'cd /tmp; cat own-*.txt'
cat own-*.txt; sort both.txt
srun bash -c 'exit $((3 * SLURM_PROCID))'; echo "code $?"
echo typed | srun -n 1 cat
srun -n 1 no-such-program; echo "code $?"
srun --pony true; echo "code $?"
sbatch next.sh; echo "code $?"
srun -n 1 hostname : -n 1 true; echo "code $?"
sinfo -N -h -o '%N %t'; squeue -h -u nobody; srun --version
bash -lc 'srun -n 1 hostname'
"""
ABANDONED = """
cd /tmp
srun bash -c 'trap "" TERM; (setsid sleep 1000 &) ; echo up; exec sleep 2000' > up & step=$!
until [ $(wc -l < up) = 2 ]; do sleep 0.1; done
kill -9 $step
counting='cat /proc/[0-9]*/comm | grep -c "^sleep$"; true'
until [ "$(srun bash -c "$counting" | sort -u)" = 0 ]; do sleep 0.2; done
echo nothing is left
"""
HEARING = "trap 'date +%s%N; exit 7' USR1; echo up; sleep 1000 & wait"


def job(ground: Ground, script: str, *options: str) -> list[str]:
    """Run a script as a job of two nodes; the lines that it has written, sorted."""
    done = ground.run(*JOB, "--no-prefix", *options, "--", "bash", "-c", script)
    assert 0 == done.code, f"{done.code}\n{done.out}\n{done.err}"
    return sorted(done.out.splitlines())


def test_srun_runs_its_tasks_on_all_nodes_each_with_its_own_place(clean: Ground) -> None:
    script = f"export TOLD=told; srun -n 4 --label bash -c '{WHO}'; echo \"batch ${{RANK-none}}\""

    assert [
        "0: 0/4 0 0 main1 main1,sub1 2(x2) main1 told",
        "1: 1/4 1 0 main1 main1,sub1 2(x2) main1 told",
        "2: 2/4 0 1 sub1 main1,sub1 2(x2) sub1 told",
        "3: 3/4 1 1 sub1 main1,sub1 2(x2) sub1 told",
        "batch none",
    ] == job(clean, script)


def test_files_codes_input_and_words_are_as_with_srun(clean: Ground) -> None:
    assert [
        "0: task 0",
        "1: task 1",
        "code 1",
        "code 1",
        "code 1",
        "code 127",
        "code 3",
        "main1",
        "main1,sub1 alloc",
        "phalanx-task: no-such-program: No such file or directory",
        "slurm 23.02.7",
        "srun: error: main1: task 0: Exited with exit code 127",
        "srun: error: sub1: task 1: Exited with exit code 3",
        (
            "srun: error: there is no part 1; the job has 1; each command (:) takes a part of "
            "its own; #SBATCH hetjob begins one"
        ),
        "srun: error: unrecognized option '--pony'",
        "task 0",
        "task 1",
        "typed",
    ] == [line for line in job(clean, FILES) if not line.startswith("sbatch: error: a container")]


def test_all_tasks_end_with_the_first_that_fails_where_that_is_asked_for(clean: Ground) -> None:
    failing = "test $SLURM_PROCID = 1 && exit 5; exec sleep 1000"

    assert ["code 143", "srun: error: sub1: task 1: Exited with exit code 5"] == job(
        clean, f"exec 2>&1; srun --kill-on-bad-exit bash -c '{failing}'; echo code $?"
    )


def test_nothing_is_left_of_the_tasks_of_a_killed_srun(clean: Ground) -> None:
    assert ["nothing is left"] == job(clean, ABANDONED)


def test_a_signal_reaches_the_tasks_of_all_nodes_at_one_moment(clean: Ground) -> None:
    name = fresh_name()
    clean.run("--detach", "-J", name, *JOB, "--", "srun", "-n", "4", "bash", "-c", HEARING).ok()

    def logs() -> list[str]:
        return clean.phalanx("logs", name, "--no-prefix").out.split()

    await_true("all tasks run", lambda: 4 == logs().count("up"), 60)
    body = {"signal": "USR1", "to": "tasks"}
    assert 204 == clean.http("POST", f"/v1/sessions/{name}/signal", body).status
    code = clean.phalanx("wait", name).code
    heard = [int(text) for text in logs() if text.isdecimal() and len(text) > 10]

    assert 4 == len(heard)
    print(f"{(max(heard) - min(heard)) / 1e6:.1f} ms between the first and the last task")
    assert 7 == code
