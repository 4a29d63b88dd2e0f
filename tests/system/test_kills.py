"""SIGKILL at named points: whatever dies in the middle of whatever, the next step cleans up and goes on."""
import os
import signal
import subprocess

import pytest

import oci
from conftest import BUILD, SLOW, alive, free_port, wait_for
from test_spine import Load, containers, fetch, import_workload, numbered_lines, spec

PULL = ["pull.spawned", "pull.done"]
START = ["create.leased", "create.folder", "create.spawned", "create.done", "start.created", "start.sent", "start.done", "start.started",
         "start.routed"]
REPLACE = ["replace.started", "replace.switched"]
STOP = ["stop.draining", "stop.drained", "stop.signalled", "stop.exited", "remove.begun", "remove.settled", "remove.unseen", "stop.removed"]
ROUNDS = ([("up", p) for p in PULL + START] + [("replace", p) for p in PULL + REPLACE + STOP[1:4]] +
          [("down", p) for p in STOP]) * (9 if os.environ.get("ZLAYER_LONG") else 1)


def kill_agent(node):
    pid = node.agent_pid()
    os.kill(pid, signal.SIGKILL)
    wait_for("the agent is gone", lambda: not alive(pid))


def serve_until(node, phase):
    """An agent that kills itself at `phase`, once it answers."""
    agent = node.start("serve", env={"ZLAYER_CRASH_AT": phase}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for("the agent answers", lambda: agent.poll() is not None or
             (node.agent_pid() == agent.pid and node.run("version", "-o", "json").stdout.count("agent")), 20)
    return agent


def died(node, agent, where):
    """The agent has come to its phase. If not: where it stands."""
    try:
        agent.wait(60 * SLOW)
    except subprocess.TimeoutExpired:
        seen = node.run("ps", "-c", "-o", "json", check=False).stdout + node.agent_log()
        agent.kill()
        raise AssertionError((where, seen, agent.communicate()[1][-4000:])) from None
    assert agent.returncode == -signal.SIGKILL, (where, agent.returncode, agent.stderr.read()[-2000:])


def guest(image, port, round_number):
    """The deployment that is put, replaced and stopped while the agent dies."""
    return f"""version: v1
deployment: guest
services:
  web:
    image: {{name: "{image}", pull_policy: always}}
    env: {{ROUND: "{round_number}"}}
    endpoints:
      - {{name: http, protocol: http, port: {port}, target_port: 8080, expose: public}}
    scale: {{mode: fixed, replicas: 2}}
    health: {{interval: 1s, timeout: 2s, check: {{type: tcp}}}}
"""


def test_the_agent_dies_in_every_phase(node, registry, tmp_path):
    """In each named phase of pull, start, replace and stop, under constant requests to what stays and what is replaced.

    No request fails, nothing that is to stay restarts, no line is lost, and what ended while there was no agent has
    its exit code.
    """
    oci.workload_layout(BUILD, tmp_path / "layout", ["serve", "8080"])
    image = f"{registry.host}/guest:1"
    oci.push(tmp_path / "layout", image)
    tag = import_workload(node, tmp_path, ["lines", "10000", "serve", "8080"])
    port, guest_port = free_port(), free_port()
    enders = f"""  ender:
    image: {{name: "{tag}"}}
    command: {{args: [until-term, "42"]}}
    scale: {{mode: fixed, replicas: {len(ROUNDS)}}}
"""
    node.run("up", "-b", node.write_spec(spec(port, tag, 3, "stays", enders)), timeout=120)

    def stays():
        return {(c["name"], c["id"], c["pid"]) for c in containers(node) if c["service"] == "web" and
                c["deployment"] == "stays"}

    def ender(slot, state):
        return [c for c in containers(node, state) if c["name"] == f"stays.ender.{slot}"]

    before, ended = stays(), {}
    load, guest_load = Load(port, 1), None
    try:
        for slot, (what, phase) in enumerate(ROUNDS, 1):
            if what == "up":
                node.run("down", "guest", check=slot > 1)
            else:
                node.run("up", "-b", node.write_spec(guest(image, guest_port, "base"), "guest.yml"))
            victim = ender(slot, "running")[0]
            kill_agent(node)
            os.kill(victim["pid"], signal.SIGTERM)
            wait_for("it has ended", lambda v=victim: not alive(v["pid"]))
            ended[victim["id"]] = slot
            agent = serve_until(node, phase)
            if what == "replace":
                guest_load = Load(guest_port, 1)
            if what == "down":
                job = node.start("down", "guest")
            else:
                job = node.start("up", "-b", node.write_spec(guest(image, guest_port, f"{slot}"), "guest.yml"))
            died(node, agent, (what, phase))
            out, err = job.communicate(timeout=60 * SLOW)
            assert job.returncode == 0, (what, phase, out, err, node.agent_log())
            if guest_load:
                assert not guest_load.stop().failures[:3], (what, phase)
                guest_load = None
            if what != "down":
                assert len([c for c in containers(node) if c["deployment"] == "guest"]) == 2, (what, phase)
                assert fetch(guest_port)[0] == 200
            else:
                assert not [c for c in containers(node, None) if c["deployment"] == "guest"], phase
            assert stays() == before, (what, phase)
            found = [c for c in ender(slot, "exited") if c["id"] == victim["id"]]
            assert found and found[0]["exit"]["reason"] == "exited" and found[0]["exit"]["code"] == 42, (what, phase)
    finally:
        load.stop()
        if guest_load:
            guest_load.stop()
    assert not load.failures[:3] and sum(load.hosts.values()) > 100
    for _, instance, _ in before:
        assert numbered_lines(node, instance) > 10000
    assert not [d for d in (node.data / "images" / "staging").iterdir()]
    # Of what died in between no lease is left: its layers go with its image.
    assert {c["id"] for c in containers(node, None)} == {d.name for d in (node.data / "images" / "leases").iterdir()}
    node.run("down", "stays")


@pytest.mark.parametrize("phase", ["net.namespace", "net.outside", "net.uplink", "net.forward", "net.members",
                                   "proxy.spawned", "cluster.applied"])
def test_the_agent_dies_while_it_makes_the_network(node, tmp_path, phase):
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    agent = serve_until(node, phase)
    node.run("up", "-b", node.write_spec(spec(port, tag, 2)))
    died(node, agent, phase)
    assert fetch(port)[0] == 200
    node.run("down", "spine")


SHIM = ["shim.attached", "shim.loaded", "shim.created", "shim.starting", "shim.started", "shim.exited", "shim.cleaned",
        "shim.recorded"]


@pytest.mark.parametrize("phase", SHIM)
def test_shims_die_and_the_next_ones_do_not(node, tmp_path, phase):
    """All shims of an agent die at one point; a new agent finds what is left, and starts anew."""
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    ends = phase in SHIM[5:]
    agent = serve_until(node, phase)
    up = node.start("up", "-b", "--timeout", "60s", node.write_spec(spec(port, tag, 2)))
    if ends:  # points of an end that nobody asked for
        assert up.wait(60 * SLOW) == 0
        for c in containers(node):
            os.kill(c["pid"], signal.SIGKILL)
    wait_for("a shim has died", lambda: containers(node, "exited"), 30)
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    node.run("up", "-b", node.write_spec(spec(port, tag, 2)))
    up.communicate(timeout=60 * SLOW)
    assert fetch(port)[0] == 200 and len(containers(node)) == 2
    node.run("down", "spine")
    assert not any((node.data / "containers").iterdir())


def test_a_killed_client_changes_nothing_and_a_killed_owner_is_missed(node, tmp_path):
    tag = import_workload(node, tmp_path, ["serve", "8080"])
    port = free_port()
    document = node.write_spec(spec(port, tag, 2))
    background = node.start("up", "-b", document)
    wait_for("the agent has it", lambda: containers(node, None), 20)
    background.kill()
    background.communicate()
    wait_for("it comes up all the same", lambda: len([c for c in containers(node) if c["health"] == "healthy"]) == 2, 30)
    assert fetch(port)[0] == 200
    node.run("down", "spine")
    foreground = node.start("up", document)
    wait_for("it is up", lambda: len([c for c in containers(node) if c["health"] == "healthy"]) == 2, 30)
    foreground.kill()
    foreground.communicate()
    wait_for("what nobody owns is stopped", lambda: not containers(node, None), 60)
