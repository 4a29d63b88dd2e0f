"""The main job, whole: an image that another program pushed is pulled, runs as replicas behind the proxy, and goes."""
import collections
import http.client
import json
import os
import pathlib
import signal
import threading
import time

import leftovers
import oci
from conftest import BUILD, alive, free_port, wait_for


def spec(port, image, replicas=3, name="spine", extra=""):
    return f"""version: v1
deployment: {name}
services:
  web:
    image: {{name: "{image}"}}
    endpoints:
      - {{name: http, protocol: http, port: {port}, target_port: 8080, expose: public}}
    scale: {{mode: fixed, replicas: {replicas}}}
    health: {{interval: 1s, timeout: 2s, check: {{type: tcp}}}}
{extra}"""


def fetch(port, path="/", timeout=10):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


def import_workload(node, tmp_path, command, tag="work:1"):
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (root / "workload").write_bytes((BUILD / "tests/programs/workload").read_bytes())
    (root / "workload").chmod(0o755)
    args = ["image", "import", root, "-t", tag, "--entrypoint", "/workload"]
    for word in command:
        args += ["--cmd", word]
    node.run(*args)
    return tag


def containers(node, state="running"):
    return [c for c in node.json("ps", "-c")["containers"] if state is None or c["state"] == state]


class Load:
    """Requests without pause from a few threads; every answer is kept, every failure too."""

    def __init__(self, port, threads=2):
        self.port, self.stop_now = port, False
        self.hosts, self.failures = collections.Counter(), []
        self.threads = [threading.Thread(target=self.work) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def work(self):
        while not self.stop_now:
            try:
                status, body = fetch(self.port)
                if status == 200:
                    self.hosts[body.split()[0]] += 1
                else:
                    self.failures.append((time.time(), status, body[:200]))
            except (OSError, http.client.HTTPException) as e:
                self.failures.append((time.time(), repr(e)))

    def stop(self):
        self.stop_now = True
        for t in self.threads:
            t.join()
        return self


def numbered_lines(node, instance):
    """Asserts that every numbered line is there once and in order, from the first that rotation has kept; the last."""
    folder = node.data / "containers" / instance
    files = sorted(folder.glob("log*"), key=lambda f: int(f.suffix[1:]) if f.suffix else 1 << 60)
    last = None
    for f in files:
        for line in f.read_bytes().split(b"\n")[:-1]:
            number = int(line.split(b" ", 3)[3].split()[1])
            assert last is None or number == last + 1, (f, last, number)
            last = number
    return last


def end_agent(node):
    """An agent that `up` started ends by itself when there is nothing left to do."""
    pid = node.agent_pid()
    if pid:
        wait_for("the idle agent ends", lambda: not alive(pid), 30)


def test_pull_run_serve_log_stop_and_nothing_left(node, registry, tmp_path):
    oci.workload_layout(BUILD, tmp_path / "layout", ["say", "hello from the replica", "serve", "8080"])
    oci.push(tmp_path / "layout", f"{registry.host}/team/work:1")
    port = free_port()
    document = node.write_spec(spec(port, f"{registry.host}/team/work:1"))
    # A first round, so that what is made once for good (folders, the store) is there before the picture is taken.
    node.run("up", "-b", document)
    node.run("down", "spine")
    end_agent(node)
    before = leftovers.snapshot()

    node.run("up", "-b", document)
    hosts = collections.Counter(fetch(port)[1].split()[0] for _ in range(30))
    assert set(hosts) == {"web-1", "web-2", "web-3"}
    logs = node.run("logs", "-d", "spine", "-s", "web", "-n", "100").stdout
    assert logs.count("hello from the replica") == 3
    node.run("down", "spine")
    end_agent(node)
    # What went meanwhile is not ours, and a zombie is its new parent's to reap.
    came = [d for d in leftovers.diff(before, leftovers.snapshot()) if ": went:" not in d and "(zombie)" not in d]
    assert not came
    assert not any((node.data / "containers").iterdir())


def test_a_killed_replica_is_healed_and_no_request_fails(node, tmp_path):
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    node.run("up", "-b", node.write_spec(spec(port, tag, 2)))
    load = Load(port)
    victim = containers(node)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for("two healthy replicas again",
             lambda: len([c for c in containers(node) if c["health"] == "healthy" and c["id"] != victim["id"]]) == 2, 30)
    load.stop()
    assert not load.failures[:3]
    ended = [c for c in containers(node, "exited") if c["id"] == victim["id"]]
    assert ended and ended[0]["exit"]["reason"] == "signal" and ended[0]["exit"]["signal"] == signal.SIGKILL


def test_the_agent_dies_again_and_again_and_nobody_notices(node, tmp_path):
    """SIGKILL to the agent under constant requests, with replicas that write 10,000 numbered lines a second."""
    rounds = 200 if os.environ.get("ZLAYER_LONG") else 20
    tag = import_workload(node, tmp_path, ["lines", "10000", "serve", "8080"])
    port = free_port()
    document = node.write_spec(spec(port, tag, 3))
    node.run("up", "-b", document)
    before = {(c["name"], c["id"], c["pid"]) for c in containers(node)}
    load = Load(port)
    for _ in range(rounds):
        pid = node.agent_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for("the agent is gone", lambda p=pid: not alive(p))
        node.run("up", "-b", document)
        assert {(c["name"], c["id"], c["pid"]) for c in containers(node)} == before
    load.stop()
    assert not load.failures[:3] and sum(load.hosts.values()) > rounds
    for _, instance, _ in before:
        assert numbered_lines(node, instance) > 10000


def test_a_port_is_free_when_its_deployment_is_gone(node, tmp_path):
    """Even though the proxy's threads still have to let go of it: under another name it is taken again at once."""
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    documents = [node.write_spec(spec(port, tag, 1).replace("deployment: spine", f"deployment: {name}"), f"{name}.yml")
                 for name in ("one", "two")]
    for turn in range(12):
        node.run("up", "-b", documents[turn % 2])
        assert fetch(port)[0] == 200
        node.run("down", ("one", "two")[turn % 2])


def test_the_stop_signal_of_an_image_is_kept(node, registry, tmp_path):
    """An image that wants SIGUSR1 gets it, from a later agent, too; the program would wait out SIGTERM."""
    oci.workload_layout(BUILD, tmp_path / "layout", ["say", "ready", "until-signal", str(int(signal.SIGUSR1))],
                        StopSignal="SIGUSR1")
    oci.push(tmp_path / "layout", f"{registry.host}/team/patient:1")
    document = node.write_spec(f"""version: v1
deployment: spine
services:
  web:
    rtype: service
    image: {{name: "{registry.host}/team/patient:1"}}
    scale: {{mode: fixed, replicas: 1}}
""")
    node.run("up", "-b", document)
    logs = node.start("logs", "-d", "spine", "-s", "web", "-f")
    assert "ready" in logs.stdout.readline()
    pid = node.agent_pid()
    os.kill(pid, signal.SIGKILL)
    wait_for("the agent is gone", lambda: not alive(pid))
    node.run("up", "-b", document)
    node.run("stop", "spine", "-t", "10m")
    wait_for("it ends, as it was asked the right way", lambda: not containers(node), 20)
    assert f"ended by signal {int(signal.SIGUSR1)}" in logs.stdout.readline()
    node.run("down", "spine")
    logs.communicate(timeout=20)


def test_what_is_ready_stays_ready_while_others_come(node, tmp_path):
    """A snapshot for the proxy that is not yet acknowledged says nothing about replicas of earlier ones."""
    image = import_workload(node, tmp_path, ["serve", "8080"])
    path = node.write_spec(spec(free_port(), image, replicas=30))
    said = node.run("up", "-b", path).stderr
    counts = [int(line.split(", ")[1].split()[0]) for line in said.splitlines() if line.startswith("web: ")]
    assert counts[-1] == 30 and counts == sorted(counts), said
    node.run("down", "spine")


def test_exits_are_told_apart(node, tmp_path):
    """exit 3 and exit 137 are exits, SIGKILL is a signal, running out of memory is that; of the child it only counts."""
    tag = import_workload(node, tmp_path, ["exit", "0"])
    text = "version: v1\ndeployment: exits\nservices:\n"
    cases = {"three": ["exit", "3"], "big": ["exit", "137"], "killed": ["signal", "9"], "oom": ["alloc", "200"],
             "child": ["child-alloc", "200", "exit", "4"]}
    for name, command in cases.items():
        limit = "    resources: {memory: 32Mi}\n" if name in ("oom", "child") else ""
        text += f"  {name}:\n    image: {{name: \"{tag}\"}}\n    command: {json.dumps(command)}\n" \
                f"    scale: {{mode: fixed, replicas: 1}}\n{limit}"
    # A first process that signals itself does nothing inside its own pid namespace, so that one is killed from outside.
    text = text.replace('["signal", "9"]', '["forever", ""]')
    node.run("up", "-b", "--timeout", "3s", node.write_spec(text), check=False)
    victim = wait_for("the one to kill runs", lambda: [c for c in containers(node) if c["service"] == "killed"])[0]
    os.kill(victim["pid"], signal.SIGKILL)

    def outcomes():
        got = {}
        for c in containers(node, "exited"):
            got.setdefault(c["service"], c["exit"])
        return got if set(got) == set(cases) else None

    got = wait_for("all have ended once", outcomes, 30)
    assert (got["three"]["reason"], got["three"]["code"]) == ("exited", 3)
    assert (got["big"]["reason"], got["big"]["code"], got["big"]["signal"]) == ("exited", 137, 0)
    assert (got["killed"]["reason"], got["killed"]["signal"]) == ("signal", 9)
    assert got["oom"]["reason"] == "oom_killed" and got["oom"]["oom_kills"] >= 1
    assert (got["child"]["reason"], got["child"]["code"]) == ("exited", 4) and got["child"]["oom_kills"] >= 1
    node.run("down", "exits")


def test_two_agents_on_one_data_dir_and_on_two(node, tmp_path):
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    document = node.write_spec(spec(port, tag, 1))
    node.run("up", "-b", document)
    second = node.run("serve", check=False, timeout=20)
    assert second.returncode == 1 and "another agent" in second.stderr
    other = type(node)(tmp_path / "other")
    try:
        import_workload(other, tmp_path, ["serve", "8080"])
        taken = other.run("up", "-b", other.write_spec(spec(port, tag, 1, "other"), "other.yml"), check=False)
        assert taken.returncode == 1 and str(port) in taken.stderr and "hint:" in taken.stderr
        port2 = free_port()
        other.run("up", "-b", other.write_spec(spec(port2, tag, 1, "other"), "other.yml"))
        assert fetch(port)[0] == 200 and fetch(port2)[0] == 200
        other.run("down", "other")
        assert fetch(port)[0] == 200
        end_agent(other)
    finally:
        other.close()
    node.run("down", "spine")


def test_what_can_not_start_says_why_and_leaves_nothing(node, tmp_path):
    port = free_port()
    missing = node.run("up", "-b", node.write_spec(spec(port, "nothing:here").replace(
        '"nothing:here"}', '"nothing:here", pull_policy: never}')), check=False)
    assert missing.returncode != 0 and "nothing:here" in missing.stderr
    node.run("down", "spine")
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    broken = spec(port, tag, 1, extra="    command: {entrypoint: [/no/such/program]}\n")
    r = node.run("up", "-b", node.write_spec(broken), check=False, timeout=90)
    assert r.returncode != 0 and "/no/such/program" in r.stderr
    node.run("down", "spine")
    end_agent(node)
    assert not any((node.data / "containers").iterdir())
