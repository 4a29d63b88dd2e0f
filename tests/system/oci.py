"""Images made for tests: an OCI layout written byte by byte here, so that what is pulled is known exactly."""
import gzip
import hashlib
import io
import json
import pathlib
import platform
import subprocess
import tarfile

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def tar_of(files):
    """A tar of {path: bytes or TarInfo}, with fixed times, so that its digest is stable."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = path
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(content), 0o755, 1
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layout(folder, layers, config=None, name="latest"):
    """Writes an OCI layout with these layers ([{path: bytes}, …]) and image config; returns the manifest's digest."""
    folder = pathlib.Path(folder)
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data, media):
        (blobs / digest(data)[7:]).write_bytes(data)
        return {"mediaType": media, "digest": digest(data), "size": len(data)}

    tars = [tar_of(files) for files in layers]
    image = {"architecture": ARCH, "os": "linux", "config": config or {},
             "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": put(json.dumps(image, ensure_ascii=False).encode(), "application/vnd.oci.image.config.v1+json"),
                "layers": [put(gzip.compress(t, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for t in tars]}
    top = put(json.dumps(manifest).encode(), manifest["mediaType"])
    top["annotations"] = {"org.opencontainers.image.ref.name": name}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return top["digest"]


def push(folder, reference, name="latest"):
    """Lets skopeo, a writer that is not ours, push a layout to a registry without TLS."""
    subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{folder}:{name}",
                    f"docker://{reference}"], check=True, stdin=subprocess.DEVNULL, timeout=60)


def workload_layout(build, folder, command, **config):
    """A layout whose root holds only the workload program, which runs `command`."""
    binary = (pathlib.Path(build) / "tests" / "programs" / "workload").read_bytes()
    return layout(folder, [{"workload": binary, "etc/passwd": b"root:x:0:0:root:/:/workload\n"}],
                  {"Entrypoint": ["/workload"], "Cmd": command, **config})
