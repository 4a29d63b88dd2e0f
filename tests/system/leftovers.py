"""What is on the machine before and after: a test that ends with nothing left behind takes two snapshots.

    before = leftovers.snapshot(folders=["/run", tmp], pids=[agent])
    ...
    leftovers.expect_none(before)          # polls: what the kernel removes late is not a leftover

A snapshot is a dict of categories, each a dict from a thing to what is to be known of it, so that `diff` can say what
came, went, or changed. It reads /proc, /sys and asks `ip` and `nft`; it changes nothing.

Other programs on the machine are noise. Processes and namespaces are taken of what belongs to zlayer only (is_zlayer),
unless `processes` says otherwise; for the rest, `ignore` takes regular expressions for lines of the difference.
"""
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
# Counters and caches of the kernel below /proc/sys/net.
VOLATILE_SYSCTLS = re.compile(r"nf_conntrack_(count|buckets|max|expect_max)$|/neigh/|/route/|tcp_fastopen_key$")


def _read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return None


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def is_zlayer(pid):
    """zlayer's own programs, and whatever runs in a cgroup of zlayer's."""
    comm = (_read(f"/proc/{pid}/comm") or "").strip()
    if comm == "zlayer" or comm == "zlayerd" or comm.startswith("zl-"):
        return True
    return "/zlayer-" in (_read(f"/proc/{pid}/cgroup") or "")


def _processes(chosen):
    """(pid, start time) → name and command line; a zombie is one too: somebody has not reaped it."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        stat = _read(f"/proc/{pid}/stat")
        if stat is None or not chosen(int(pid)):
            continue
        fields = stat.rsplit(")", 1)[1].split()
        command = (_read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()
        name = (_read(f"/proc/{pid}/comm") or "?").strip()
        found[f"{pid} started {fields[19]}"] = f"{name}{' (zombie)' if fields[0] == 'Z' else ''}: {command}"
    return found


def _namespaces(processes):
    """Held by the processes chosen, by a bind mount, or by a descriptor of this program."""
    found = {}
    for key in processes:
        pid = key.split()[0]
        for kind in NAMESPACES:
            ns = _link(f"/proc/{pid}/ns/{kind}")
            if ns and ns != _link(f"/proc/self/ns/{kind}"):
                found.setdefault(ns, "of a process of zlayer's")
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("nsfs "):
            found[before.split()[3]] = f"pinned at {before.split()[4]}"
    return found


def _mounts():
    found = {}
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), after.split()
        key = f"{fields[4]} ({kind})"
        while key in found:  # stacked on each other
            key += " again"
        found[key] = f"{source} {fields[3]} {fields[5]}"
    return found


def _ip(*args):
    r = subprocess.run(["ip", "-j", *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    try:
        return json.loads(r.stdout or "[]")
    except ValueError:
        return []


def _links():
    found = {}
    for link in _ip("addr", "show"):
        addresses = sorted(f"{a.get('local')}/{a.get('prefixlen')}" for a in link.get("addr_info", []))
        found[link.get("ifname", "?")] = f"{'up' if 'UP' in link.get('flags', []) else 'down'} {' '.join(addresses)}"
    return found


def _routes():
    found = {}
    for family in ("-4", "-6"):
        for route in _ip(family, "route", "show", "table", "all"):
            where = " ".join(f"{k} {route[k]}" for k in ("gateway", "dev", "prefsrc", "metric") if k in route)
            key = f"{route.get('type', 'unicast')} {route.get('dst')} table {route.get('table', 'main')} {where}"
            found[key.strip()] = ""
        for rule in _ip(family, "rule", "show"):
            found[f"rule {family} {json.dumps(rule, sort_keys=True)}"] = ""
    return found


def _rules():
    """Each table, chain, set and rule, without handles and counters."""
    if not shutil.which("nft"):
        return {}
    r = subprocess.run(["nft", "-s", "list", "ruleset"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                       check=False)
    found, place = collections.Counter(), []
    for line in r.stdout.splitlines():
        line = line.strip()
        if line.endswith("{"):
            place.append(line[:-1].strip())
            found[" > ".join(place)] += 1
        elif line == "}":
            if place:
                place.pop()
        elif line:
            found[" > ".join([*place, line])] += 1
    return {key: f"{n} times" if n > 1 else "" for key, n in found.items()}


def _sysctls():
    found = {}
    for folder, _, files in os.walk("/proc/sys/net"):
        for name in files:
            path = f"{folder}/{name}"
            if not VOLATILE_SYSCTLS.search(path):
                value = _read(path)
                if value is not None:
                    found[path.removeprefix("/proc/sys/")] = value.strip()
    return found


def _cgroups():
    found = {}
    for line in (_read("/proc/self/mounts") or "").splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            for folder, folders, _ in os.walk(where):
                for name in folders:
                    found[f"{folder}/{name}"] = ""
    return found


def _files(folders):
    """Every name below the folders, on their own file system, with its kind."""
    found = {}
    for top in folders:
        try:
            device = os.lstat(top).st_dev
        except OSError:
            continue
        stack = [str(top)]
        while stack:
            try:
                entries = list(os.scandir(stack.pop()))
            except OSError:
                continue
            for e in entries:
                kind = "link" if e.is_symlink() else "folder" if e.is_dir(follow_symlinks=False) else \
                    "file" if e.is_file(follow_symlinks=False) else "special"
                found[e.path] = kind
                try:
                    if kind == "folder" and e.stat(follow_symlinks=False).st_dev == device:
                        stack.append(e.path)
                except OSError:
                    found.pop(e.path, None)
    return found


def _descriptors(pids):
    """Counts by what they are open on; sockets and pipes have no names, so only their number can be compared."""
    found = {}
    for pid in pids:
        counts = collections.Counter()
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            target = _link(f"/proc/{pid}/fd/{name}")
            if target:
                counts[re.sub(r"(socket|pipe):\[\d+\]", r"\1", target)] += 1
        for target, n in counts.items():
            found[f"{pid} {target}"] = str(n)
    return found


def _sockets():
    """Listening TCP and unix sockets with a name, of this network namespace."""
    found = {}
    for protocol in ("tcp", "tcp6"):
        for line in (_read(f"/proc/net/{protocol}") or "").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[f"{protocol} port {int(fields[1].rsplit(':', 1)[1], 16)} on {fields[1].rsplit(':', 1)[0]}"] = ""
    for line in (_read("/proc/net/unix") or "").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & 0x10000:  # listens
            found[f"unix {fields[7]}"] = ""
    return found


def snapshot(folders=(), pids=(), processes=is_zlayer):
    chosen = _processes(processes)
    return {
        "processes": chosen,
        "namespaces": _namespaces(chosen),
        "mounts": _mounts(),
        "links": _links(),
        "routes": _routes(),
        "rules": _rules(),
        "sysctls": _sysctls(),
        "cgroups": _cgroups(),
        "sockets": _sockets(),
        "files": _files(folders),
        "descriptors": _descriptors(pids),
        "_arguments": {"folders": list(folders), "pids": list(pids), "processes": processes},
    }


def diff(before, after, ignore=(), out=None):
    """The lines that say what differs, printed to `out` when given; an empty list is what a test wants."""
    lines = []
    for category in before:
        if category.startswith("_"):
            continue
        old, new = before[category], after[category]
        for key in sorted(old.keys() | new.keys()):
            if key not in old:
                line = f"{category}: came: {key} {new[key]}"
            elif key not in new:
                line = f"{category}: went: {key} {old[key]}"
            elif old[key] != new[key]:
                line = f"{category}: changed: {key}: {old[key]} → {new[key]}"
            else:
                continue
            line = line.strip()
            if not any(re.search(pattern, line) for pattern in ignore):
                lines.append(line)
    for line in lines if out else ():
        print(line, file=out)
    return lines


def expect_none(before, ignore=(), seconds=5.0):
    """Fails with the differences that are still there after so long."""
    deadline = time.monotonic() + seconds
    while True:
        lines = diff(before, snapshot(**before["_arguments"]), ignore)
        if not lines:
            return
        if time.monotonic() > deadline:
            raise AssertionError("left behind:\n  " + "\n  ".join(lines))
        time.sleep(0.05)


if __name__ == "__main__":
    json.dump({k: v for k, v in snapshot(sys.argv[1:]).items() if not k.startswith("_")}, sys.stdout, indent=1)
