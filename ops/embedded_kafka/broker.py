"""Runs the embedded Kafka: one real broker on loopback, with its files in one directory.

Owns the broker's process: starting, stopping, and finding it again from another process. Its
jars and its Java belong to ``runtime``, its configuration to ``broker_config``.
The directory contains::

    broker.json        port; while the broker runs also its pid and start time
    server.properties  written at each start
    broker.log         log of the current run; broker.log.1 is that of the previous run
    data/              Kafka's own data
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from ops.embedded_kafka import broker_config
from ops.embedded_kafka.broker_config import BrokerSettings
from ops.embedded_kafka.runtime import ensure_jars, find_java, java_environment
from ops.errors import BrokerNotStarted, BrokerStartFailed, PortTaken
from ops.processes import children as processes
from ops.processes.log_files import last_error
from ops.processes.ports import HOST, can_listen, free_port, kafka_answers
from ops.processes.start_limits import Patience
from ops.processes.state_file import replace_file
from serve.settings import Settings

logger = logging.getLogger(__name__)

POLL_S = 0.05
# Linux derives a process's start from the time since boot; the clock may be adjusted in between.
SAME_START_S = 1.0
KILL_DEADLINE_S = 10.0
# For a Java process that writes a few files; on a busy machine it takes as long as a full start.
FORMAT_DEADLINE_S = 300.0


class BrokerState(Settings):
    """Content of ``broker.json``.

    Attributes:
        port: Port of the clients' listener; kept so that a restart has the same address.
        pid: Id of the Java process; None after it was stopped in order.
        created: When that process started, in seconds since 1970: distinguishes it from a later
            process with the same id.
    """

    port: int
    pid: int | None = None
    created: float = 0.0


class EmbeddedBroker:
    """One Kafka broker on loopback; several objects may manage the same directory."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.log_file = settings.data_dir / "broker.log"
        self._state_file = settings.data_dir / "broker.json"
        # Kept to be waited for: otherwise the ended child would stay in the process table.
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, deadline_s: float = 60.0) -> str:
        """Start the broker and wait until it answers; a running one is left alone.

        Args:
            deadline_s: For everything but downloading missing jars; extended on a busy machine.
        Returns:
            The bootstrap servers, ``host:port``.
        Raises:
            PortTaken: Another program listens on the port. Not retriable.
            BrokerStartFailed: The broker died or did not answer in time; names cause and log.
            RuntimeMissing: The jars or Java are missing.
        """
        jars, java = ensure_jars(), find_java()
        patience = Patience(deadline_s)
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with self._locked(patience):
            if self.is_running():
                logger.info("Kafka is running, pid %s, on %s", self.pid, self.bootstrap_servers)
            else:
                self._launch(jars, java)
            self._wait_until_it_answers(patience)
        return self.bootstrap_servers

    def stop(self, deadline_s: float = 20.0) -> None:
        """Stop the broker in order, or by force after ``deadline_s``; its data is kept."""
        self._end(signal.SIGTERM, deadline_s=deadline_s)

    def kill(self) -> None:
        """Kill the broker as a crash would; return when the process has ended."""
        self._end(signal.SIGKILL, deadline_s=10.0)

    def is_running(self) -> bool:
        """Return whether the broker's process runs, whichever process started it."""
        return self._process() is not None

    @property
    def pid(self) -> int | None:
        """Process id of the running broker; None if it does not run."""
        process = self._process()
        return process.pid if process else None

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients, the same at every start.

        Raises:
            BrokerNotStarted: The broker was never started, so no port was chosen.
        """
        state = self._read_state()
        if state is None:
            raise BrokerNotStarted(f"no broker was started in {self.settings.data_dir} yet")
        return f"{HOST}:{state.port}"

    def cause(self) -> str:
        """Return why the broker died: the last error in its log; empty if there is none."""
        if not self.log_file.exists():
            return ""
        return last_error(self.log_file.read_text(errors="replace"))

    # -- the process ---------------------------------------------------------------------

    def _launch(self, jars: Sequence[Path], java: Path) -> None:
        port = self._claim_port()
        config = self.settings.data_dir / "server.properties"
        broker_config.write_properties(
            config, self.settings, port=port, controller_port=free_port()
        )
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_name("broker.log.1"))
        if not (broker_config.data_folder(self.settings) / "meta.properties").exists():
            self._format(jars, java)
        command = broker_config.java_command(
            self.settings, java, jars, main="kafka.Kafka", arguments=[str(config)]
        )
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=java_environment(),
                cwd=self.settings.data_dir,
                # Ctrl-C in the terminal must reach only the program that started the broker,
                # which then stops it in order.
                start_new_session=True,
            )
        created = psutil.Process(self._child.pid).create_time()
        self._write_state(BrokerState(port=port, pid=self._child.pid, created=created))

    def _format(self, jars: Sequence[Path], java: Path) -> None:
        config = self.settings.data_dir / "server.properties"
        arguments = ["format", "-t", cluster_id(uuid.uuid4()), "-c", str(config)]
        arguments += broker_config.scram_arguments(self.settings)
        command = broker_config.java_command(
            self.settings, java, jars, main="kafka.tools.StorageTool", arguments=arguments
        )
        with self.log_file.open("ab") as log:
            try:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=java_environment(),
                    timeout=FORMAT_DEADLINE_S,
                    check=True,
                )
            except subprocess.SubprocessError as exc:
                raise self._start_failed("could not format its storage") from exc

    def _wait_until_it_answers(self, patience: Patience) -> None:
        state = self._read_state()
        assert state is not None  # _launch wrote it
        while not kafka_answers(state.port, self.settings.ca_file):
            if not self.is_running():
                raise self._start_failed("died during startup")
            if patience.is_over():
                self.kill()
                raise self._start_failed(f"did not answer within {patience} and was stopped")
            time.sleep(POLL_S)
        logger.info("Kafka answers on %s, pid %s", self.bootstrap_servers, self.pid)

    def _start_failed(self, what: str) -> BrokerStartFailed:
        cause = self.cause()
        return BrokerStartFailed(
            f"Kafka in {self.settings.data_dir} {what}{f' ({cause})' if cause else ''}; its log is "
            f"{self.log_file}"
        )

    def _process(self) -> psutil.Process | None:
        if self._child is not None:
            self._child.poll()
        state = self._read_state()
        if state is None or state.pid is None:
            return None
        try:
            process = psutil.Process(state.pid)
            same = abs(process.create_time() - state.created) < SAME_START_S
        except psutil.NoSuchProcess:
            return None
        return process if same and processes.is_alive(process) else None

    def _end(self, how: signal.Signals, *, deadline_s: float) -> None:
        process = self._process()
        if process is not None and not _end_process(process, how, deadline_s=deadline_s):
            logger.warning("Kafka did not stop in %g s; killing pid %d", deadline_s, process.pid)
            _end_process(process, signal.SIGKILL, deadline_s=KILL_DEADLINE_S)
        if self._child is not None:
            self._child.wait(timeout=KILL_DEADLINE_S)
            self._child = None
        state = self._read_state()
        if state is not None:
            self._write_state(BrokerState(port=state.port))

    # -- the directory -------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, patience: Patience) -> Iterator[None]:
        with (self.settings.data_dir / "lock").open("w") as file:
            while not _try_lock(file.fileno()):
                if patience.is_over():
                    raise BrokerStartFailed(
                        f"another process has been starting Kafka in {self.settings.data_dir} "
                        "for too long; end it and try again"
                    )
                time.sleep(POLL_S)
            yield  # closing the file releases the lock

    def _claim_port(self) -> int:
        state = self._read_state()
        port = self.settings.port or (state.port if state else free_port())
        if not can_listen(port):
            raise PortTaken(
                f"port {port}, the address of Kafka in {self.settings.data_dir}, is in use by "
                f"another program. Stop that program (`lsof -i :{port}` names it), or set another "
                f"port, or remove {self._state_file} to have a new one chosen"
            )
        return port

    def _read_state(self) -> BrokerState | None:
        try:
            return BrokerState.model_validate_json(self._state_file.read_bytes())
        except FileNotFoundError:
            return None

    def _write_state(self, state: BrokerState) -> None:
        replace_file(self._state_file, state.model_dump_json())


def cluster_id(source: uuid.UUID) -> str:
    """Encode a UUID as Kafka does, in base 64, but never with a leading hyphen.

    The storage tool takes an id with a leading hyphen for an option: 1 in 64 would fail.
    """
    first, rest = source.bytes[0] & 0x7F, source.bytes[1:]
    return urlsafe_b64encode(bytes([first]) + rest).decode().rstrip("=")


def _end_process(process: psutil.Process, how: signal.Signals, *, deadline_s: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(how)
    return not processes.wait([process], deadline_s)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
