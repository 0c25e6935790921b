"""A Slurm on this machine for tests: `python tests/slurm/lab.py start|stop DIR [--accounting] [--quiet-preemption]`.

Two virtual nodes of two cores on the loopback interface, with munge but without systemd. Partitions: `main`, whose jobs
are requeued when `urgent` needs their nodes. Everything it writes is in DIR. Starting what runs and stopping what does
not is fine. Needs root, and Debian's packages slurmctld, slurmd, slurm-client and munge; for accounting slurmdbd and
mariadb-server, too. Afterwards: `export SLURM_CONF=DIR/slurm.conf`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("n0", "n1")
PORT = 26817
WAIT = 30.0
PACKAGES = "slurmctld slurmd slurm-client munge"

CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Credentials expire after 5 s: a requeued job waits for that, else for two minutes.
AuthInfo=socket={lab}/run/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobCompType=jobcomp/none
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
{user_signal}
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool/%n
SlurmctldPidFile={lab}/state/slurmctld.pid
SlurmdPidFile={lab}/spool/%n.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdLogFile={lab}/log/slurmd-%n.log
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=300
MessageTimeout=10
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""

DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={lab}/run/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db_port}
StorageUser=slurm
StoragePass=lab
StorageLoc=slurm_acct_db
PidFile={lab}/state/slurmdbd.pid
LogFile={lab}/log/slurmdbd.log
"""


class LabError(RuntimeError):
    """The lab cannot be: something is not installed, or does not start."""


class Lab:
    """The daemons in a folder."""

    def __init__(self, folder: Path, port: int = PORT):
        self.folder = folder.resolve()
        self.conf = self.folder / "slurm.conf"
        self.port = port  # slurmctld's; the nodes' follow, the database's precede it
        self._processes: list[subprocess.Popen] = []  # started by this process
        self.mark = f"# jaxgpt-lab-{port}"
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": path}

    # --------------------------------------------------------------------------------------------------------- starting

    def start(self, accounting: bool = False, user_signal: bool = True) -> None:
        """Start what does not run. `user_signal`: a preemption is announced by the job's own signal, else by TERM."""
        self._check(accounting)
        for name in ("run", "log", "state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o700)  # munged refuses another
        self._munge()
        self._resolve()
        if accounting:
            self._database()
        if not self._alive("slurmctld"):
            self.conf.write_text(self._text(accounting, user_signal))
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self._wait("slurmctld", lambda: self.ask("scontrol", "ping") is not None)
        for node in NODES:
            (self.folder / "spool" / node).mkdir(exist_ok=True)
            self._spawn(f"slurmd-{node}", "slurmd", "-D", "-N", node, "-f", str(self.conf))
        idle = ("sinfo", "--noheader", "--Node", "--partition=main", "--states=idle,mixed,alloc", "--format=%N")
        self._wait("the nodes", lambda: set((self.ask(*idle) or "").split()) == set(NODES))

    def _check(self, accounting: bool) -> None:
        programs = ["munged", "slurmctld", "slurmd", "sinfo", *(["slurmdbd", "mariadbd"] if accounting else [])]
        missing = [name for name in programs if shutil.which(name, path=self.environment["PATH"]) is None]
        if missing:
            more = " slurmdbd mariadb-server" if accounting else ""
            raise LabError(
                f"{', '.join(missing)}: not installed; apt-get install --no-install-recommends {PACKAGES}{more}"
            )
        if os.getuid() != 0:
            raise LabError("needs root: slurmd becomes other users")

    def _text(self, accounting: bool, user_signal: bool) -> str:
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 1 + i} CPUs=2 RealMemory=8000"
            for i, node in enumerate(NODES)
        ]
        storage = ["JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none"]
        if accounting:
            storage = [
                "JobAcctGatherType=jobacct_gather/linux",
                "AccountingStorageType=accounting_storage/slurmdbd",
                "AccountingStorageHost=127.0.0.1",
                f"AccountingStoragePort={self.port - 1}",
                f"AccountingStoragePass={self.folder}/run/munge.sock",
            ]
        return CONF.format(
            host=host,
            port=self.port,
            lab=self.folder,
            accounting="\n".join(storage),
            user_signal="SlurmctldParameters=preempt_send_user_signal" if user_signal else "",
            nodes="\n".join(nodes),
        )

    def _munge(self) -> None:
        key, run = self.folder / "munge" / "key", self.folder / "run"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(secrets.token_bytes(1024))
        files = {"key-file": key, "socket": run / "munge.sock"}
        files |= {f"{name}-file": self.folder / "munge" / name for name in ("pid", "log", "seed")}
        self._spawn("munged", "munged", "--foreground", *(f"--{name}={path}" for name, path in files.items()))
        self._wait("munge", lambda: self.ask("munge", "-n", "-S", str(run / "munge.sock")) is not None)

    def _resolve(self) -> None:
        """JAX connects to the first node of a job by its name."""
        hosts = Path("/etc/hosts")
        if self.mark not in hosts.read_text():
            with hosts.open("a") as file:
                file.write(f"127.0.0.1 {' '.join(NODES)} {self.mark}\n")

    def _database(self) -> None:
        """A MariaDB of its own, and slurmdbd."""
        data, sock = self.folder / "db", self.folder / "run" / "db.sock"
        if not (data / "mysql").exists():
            install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
            subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        server = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}"]
        self._spawn("mariadbd", *server, "--bind-address=127.0.0.1", f"--port={self.port - 2}")
        client = ("mariadb", "--no-defaults", "-u", "root", "-S", str(sock), "-e")
        self._wait("MariaDB", lambda: self.ask(*client, "select 1") is not None)
        grant = "grant all on slurm_acct_db.* to slurm@'127.0.0.1' identified by 'lab'"
        subprocess.run([*client, f"create database if not exists slurm_acct_db; {grant}"], check=True)
        conf = self.folder / "slurmdbd.conf"
        conf.touch(0o600)
        ports = {"dbd_port": self.port - 1, "db_port": self.port - 2}
        conf.write_text(DBD_CONF.format(lab=self.folder, host=socket.gethostname().partition(".")[0], **ports))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: socket.create_connection(("127.0.0.1", self.port - 1), 1).close() is None)

    def _spawn(self, name: str, *command: str) -> None:
        if self._alive(name):
            return
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid(name).write_text(str(process.pid))
        self._processes.append(process)

    def _wait(self, what: str, there: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT
        while True:
            try:
                if there():
                    return
            except OSError:
                pass
            if time.monotonic() > until:
                raise LabError(f"{what}: not there after {WAIT:g} s; see {self.folder / 'log'}")
            time.sleep(0.2)

    # --------------------------------------------------------------------------------------------------------- stopping

    def stop(self) -> None:
        """End all jobs, then the daemons, each by its own number."""
        if self._alive("slurmctld"):
            self.ask("scancel", f"--user={os.getuid()}")
            until = time.monotonic() + 15
            while (self.ask("squeue", "--noheader") or "").strip() and time.monotonic() < until:
                time.sleep(0.2)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES), "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for process in self._processes:
            process.wait()
        hosts = Path("/etc/hosts")
        lines = hosts.read_text().splitlines(keepends=True)
        kept = [line for line in lines if self.mark not in line]
        if kept != lines:
            hosts.write_text("".join(kept))

    def _end(self, name: str) -> None:
        pid = self._alive(name)
        if pid:
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + 10
            while self._alive(name) and time.monotonic() < until:
                time.sleep(0.1)
            if self._alive(name):
                os.kill(pid, signal.SIGKILL)
        self._pid(name).unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------------------------------- looking

    def _pid(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.pid"

    def _alive(self, name: str) -> int:
        """The number of a daemon's process, 0 where it does not run."""
        try:
            pid = int(self._pid(name).read_text())
            command, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except (OSError, ValueError):
            return 0
        return pid if command == name.partition("-")[0] and rest.split()[0] != "Z" else 0

    def ask(self, *command: str) -> str | None:
        """What a command prints; None where it fails."""
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def announce(self, user_signal: bool) -> None:
        """Whether a preemption is announced by the job's own signal, else by TERM, from now on."""
        accounting = "slurmdbd" in self.conf.read_text()
        self.conf.write_text(self._text(accounting, user_signal))
        if self.ask("scontrol", "reconfigure") is None:
            raise LabError("scontrol reconfigure failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("verb", choices=("start", "stop"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accounting", action="store_true", help="with a database, so that sacct answers")
    parser.add_argument("--quiet-preemption", action="store_true", help="a preemption sends TERM only, no USR2")
    arguments = parser.parse_args()
    lab = Lab(arguments.folder)
    if arguments.verb == "stop":
        lab.stop()
        return
    try:
        lab.start(arguments.accounting, not arguments.quiet_preemption)
    except LabError as error:
        sys.exit(str(error))
    print(f"export SLURM_CONF={lab.conf}")


if __name__ == "__main__":
    main()
