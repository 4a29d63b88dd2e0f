"""The README's tour, typed as it stands there: each line in turn, in a network namespace of its own."""
import os
import re
import shlex
import signal
import subprocess
import threading

import pytest

from conftest import BUILD, SLOW, TOP, alive, need_root, wait_for

# Not possible here, each with the reason; everything else of the tour is run.
LEFT_OUT = {"make && sudo make install": "the build under test is installed instead",
            "sudo zlayer pull docker.io/library/nginx:latest": "needs the internet",
            "sudo zlayer login registry.example.com && sudo zlayer push hello registry.example.com/team/hello:1": "needs a registry of the user's"}
UNTIL_INTERRUPT = {"sudo zlayer up": "listens on 8080", "sudo zlayer logs -d shop -f": "/ 200"}


def tour():
    text = (TOP / "README.md").read_text()
    part = re.search(r"^## Five minutes\n(.*?)^## ", text, re.M | re.S).group(1)
    return re.findall(r"^```(\w+)\n(.*?)^```", part, re.M | re.S)


@pytest.fixture
def shell(tmp_path):
    """A prefix that runs a command in the tour's namespace, and its environment."""
    need_root()
    subprocess.run(["meson", "install", "-C", BUILD, "--quiet", "--no-rebuild", "--destdir", tmp_path / "dest"], check=True,
                   stdout=subprocess.DEVNULL, timeout=60)
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"],
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "up\n"
    data = tmp_path / "data"
    env = {**os.environ, "ZLAYER_DATA_DIR": str(data), "NO_COLOR": "1",
           "PATH": f"{tmp_path}/dest/usr/local/bin:{os.environ['PATH']}"}
    yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"], env
    subprocess.run(["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", "zlayer", "down", "shop", "--force"], env=env,
                   check=False, capture_output=True, timeout=60)
    try:
        agent = int((data / "agent.lock").read_text().split()[0])
        if alive(agent):
            os.kill(agent, signal.SIGTERM)
            wait_for("the agent ends", lambda: not alive(agent))
    finally:
        holder.kill()
        holder.wait()


def test_the_tour(shell, tmp_path):
    prefix, env = shell
    folder = tmp_path / "tour"
    folder.mkdir()
    (folder / "build").symlink_to(BUILD)
    ran, replies = [], []
    for kind, block in tour():
        if kind == "yaml":
            (folder / ".zlayer.yml").write_text(block)
            continue
        for line in block.splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command in LEFT_OUT:
                continue
            words = ["sh", "-c", command.replace("sudo ", "exec " if command.startswith("sudo ") else "")]
            if command in UNTIL_INTERRUPT:
                p = subprocess.Popen(prefix + words, env=env, cwd=folder, text=True, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                watchdog = threading.Timer(60 * SLOW, p.kill)
                watchdog.start()
                seen = []
                while not seen or UNTIL_INTERRUPT[command] not in seen[-1]:
                    seen.append(p.stdout.readline())
                    assert seen[-1], (command, seen)
                p.send_signal(signal.SIGINT)
                rest = p.communicate()[0]
                watchdog.cancel()
                assert p.returncode in (0, 130, -signal.SIGINT), (command, p.returncode, seen, rest)
            else:
                r = subprocess.run(prefix + words, env=env, cwd=folder, text=True, stdin=subprocess.DEVNULL, timeout=60 * SLOW,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
                assert r.returncode == 0, (command, r.stdout)
                replies.append((shlex.split(command), r.stdout))
            ran.append(command)
    outputs = {" ".join(words): out for words, out in replies}
    assert "hello from web-" in outputs["curl localhost:8080"]
    assert outputs["sudo zlayer exec web -- /hello check"].strip() == "ok"
    assert "hello:latest" in outputs["sudo zlayer image ls"]
    assert len(ran) >= 11
