"""The command line against a real agent: foreground up, its interrupts, lost agents, exit codes, listings."""
import json
import os
import shutil
import signal
import urllib.error
import urllib.request

import pytest

from conftest import BUILD, SLOW, alive, free_port, wait_for

SPEC = """\
version: v1
deployment: hello
services:
  web:
    image: {{name: "hello:latest", pull_policy: never}}
    endpoints: [{{name: http, protocol: http, port: {port}, target_port: 8080, expose: public}}]
    scale: {{mode: fixed, replicas: 2}}
    health: {{interval: 1s, timeout: 1s, retries: 3, check: {{type: http, url: /health, expect_status: 200}}}}
"""


@pytest.fixture
def site(node, tmp_path):
    """A node with the hello image and a document of two replicas on a free port."""
    root = tmp_path / "rootfs"
    root.mkdir()
    shutil.copy(BUILD / "examples/hello/hello", root / "hello")
    node.run("image", "import", root, "-t", "hello", "--cmd", "/hello", "-p", "8080")
    node.port = free_port()
    node.folder = tmp_path
    (tmp_path / ".zlayer.yml").write_text(SPEC.format(port=node.port))
    return node


def get(site, path="/"):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{site.port}{path}", timeout=5) as r:
            return r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code


def start_up(site):
    out = open(site.folder / "out", "w+")
    err = open(site.folder / "err", "w+")
    p = site.start("up", cwd=site.folder, stdout=out, stderr=err)
    wait_for("up says that it is ready", lambda: "is ready" in (site.folder / "err").read_text(), 20)
    return p


def test_up_shows_every_line_once_though_the_agent_is_killed(site):
    p = start_up(site)
    asked = []
    for round_ in range(4):
        for i in range(5):
            asked.append(f"/line-{round_}-{i}")
            assert get(site, asked[-1]) == 404
        wait_for("the last line", lambda: asked[-1] in (site.folder / "out").read_text(), 10)
        if round_ < 3:
            pid = wait_for("an agent", site.agent_pid, 10)
            os.kill(pid, signal.SIGKILL)
            wait_for(f"another agent than {pid}", lambda: site.agent_pid() not in (None, pid), 8)
    p.send_signal(signal.SIGINT)
    assert p.wait(40 * SLOW) == 130
    text = (site.folder / "out").read_text()
    for path in asked:
        assert text.count(f" {path} 404\n") == 1, path
    for line in text.splitlines():
        assert line.startswith(("web-1 | ", "web-2 | ")), line
    assert text.count(" ends\n") == 2  # stopped by SIGTERM, and what they said last was shown
    assert site.json("ps")["containers"] == []


def test_a_second_interrupt_comes_through(site):
    p = start_up(site)
    p.send_signal(signal.SIGINT)
    wait_for("it stops", lambda: "stopping 'hello'" in (site.folder / "err").read_text() or p.poll() is not None, 10)
    p.send_signal(signal.SIGINT)
    assert p.wait(40 * SLOW) == 130


def test_a_deployment_that_is_taken_down_ends_its_up(site):
    p = start_up(site)
    site.run("down", "hello")
    assert p.wait(40 * SLOW) == 0
    assert "was taken down" in (site.folder / "err").read_text()


def test_background_listings_and_exec(site):
    r = site.run("up", "-b", cwd=site.folder)
    assert r.stdout.startswith("Deployment 'hello' ready (1/1 services healthy):")
    assert f"http://localhost:{site.port}" in r.stdout
    assert {get(site) for _ in range(8)} == {"hello from web-1\n", "hello from web-2\n"}
    shown = site.json("ps")
    assert [s["name"] for s in shown["services"]] == ["web"]
    assert sorted(c["name"] for c in shown["containers"]) == ["hello.web.1", "hello.web.2"]
    assert site.json("status")["deployments"][0]["name"] == "hello"
    assert site.json("status", "hello")["status"] == "ready"
    assert site.run("status", "nothing", check=False).returncode == 3
    assert site.run("logs", "-d", "hello", "-s", "web", "-i", "2", "-n", "1").stdout.startswith("web-2 | ")
    assert site.run("logs", "wbe", check=False).returncode == 3
    assert site.run("exec", "web", "--", "/hello", "99999999", check=False).returncode == 1
    assert site.run("exec", "web", "--", "/nothing", check=False).returncode == 127
    names = site.run("__complete", "down", "").stdout
    assert names == "hello\t\n"
    r = site.run("deploy", "--dry-run", "--detailed-exitcode", cwd=site.folder, check=False)
    assert r.returncode == 0 and "keep" in r.stderr
    site.run("down", "hello")
    assert json.loads(site.run("ps", "-o", "json").stdout) == {"services": [], "containers": []}


def test_a_failure_says_why_and_exits_1(site):
    spec = (site.folder / ".zlayer.yml").read_text()
    (site.folder / "bad.yml").write_text(spec.replace("hello:latest", "missing:latest"))
    for args in (["up", "-b"], ["deploy"], ["up"]):
        r = site.run(*args, "bad.yml", cwd=site.folder, check=False, timeout=40)
        assert r.returncode in (1, 3), r.stderr
        assert "missing" in r.stderr
        site.run("down", "hello", check=False)


def test_serve_runs_the_agent_in_the_foreground(site):
    p = site.start("serve")
    pid = wait_for("the agent serves", site.agent_pid, 10)
    assert pid == p.pid
    assert site.run("serve", check=False).returncode == 1  # the data dir is in use
    wait_for("it answers", lambda: site.run("status").stdout.startswith("Status: running"), 10)
    p.send_signal(signal.SIGTERM)
    assert p.wait(20 * SLOW) == 0
    assert not alive(pid)
