"""A real Slurm of two nodes on this machine, for as long as a test takes."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = """
ClusterName=jdna
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node-%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node-%n.log
SlurmctldPort=26817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=27001 CPUs=1 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=27002 CPUs=1 RealMemory=2000
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=60 State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=off MaxTime=60 State=UP
"""


def is_there():
    """Whether it can be started: its programs are installed, and this is root."""
    programs = ("slurmctld", "slurmd", "munged", "squeue")
    return os.getuid() == 0 and all(map(shutil.which, programs))


@contextlib.contextmanager
def started(folder):
    """Yield its configuration file."""
    folder.mkdir()
    (folder / "state").mkdir()
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder))
    environment = {**os.environ, "SLURM_CONF": str(file)}
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode != 0:
        key = Path("/etc/munge/munge.key")
        if not key.is_file() or not key.stat().st_size:
            key.write_bytes(os.urandom(1024))
        for path in (key, Path("/var/log/munge"), Path("/var/lib/munge"), Path("/run/munge")):
            path.exists() or path.mkdir()
            shutil.chown(path, "munge", "munge")
        key.chmod(0o400)
        as_munge = ["su", "munge", "-s", "/bin/sh", "-c", "munged --force"]
        subprocess.run(as_munge, capture_output=True, check=False)
    try:
        for command in (["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        deadline = time.monotonic() + 30
        asked = ["sinfo", "--noheader", "--states=idle", "--format=%D", "--partition=low"]
        while True:
            told = subprocess.run(
                asked, env=environment, capture_output=True, text=True, check=False
            )
            if told.stdout.strip() == "2":
                break
            assert time.monotonic() < deadline, told
            time.sleep(0.5)
        yield file
    finally:
        subprocess.run(["scancel", "--me"], env=environment, capture_output=True, check=False)
        subprocess.run(["scontrol", "shutdown"], env=environment, capture_output=True, check=False)
        for pid in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid.read_text()), 9)
