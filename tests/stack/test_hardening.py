"""The flags of the compose file as the kernel has them, and the image itself."""
import pathlib

import pytest

from containers import PROJECT, STATE, containers, docker, inspect, run

SERVICES = ["postgres", "musterd", "haproxy", "mosquitto", "prometheus"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_engine_was_told(service):
    names = containers(service)
    assert names
    for name in names:
        host = inspect(name)["HostConfig"]
        assert host["ReadonlyRootfs"] and not host["Privileged"]
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0 and host["PidsLimit"] > 0
        assert host["LogConfig"]["Config"]["max-size"] == "10m"
        assert not any(m["Source"].endswith("docker.sock") for m in inspect(name)["Mounts"])


@pytest.mark.parametrize("service", SERVICES)
def test_the_kernel_obeys(service):
    for name in containers(service):
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{inspect(name)['State']['Pid']}/status").read_text().splitlines() if ":\t" in line)
        assert "0" not in status["Uid"].split()
        assert status["NoNewPrivs"] == "1"
        assert {int(status[c], 16) for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        for folder in ("/etc", "/usr/bin", "/var/lib"):
            done = run("docker", "exec", name, "touch", f"{folder}/mark", check=False)
            assert done.returncode != 0 and ("Read-only" in done.stderr or "Permission denied" in done.stderr), done.stderr
        assert " / overlay ro" in pathlib.Path(f"/proc/{inspect(name)['State']['Pid']}/mounts").read_text().replace("overlay / ", " / ")


def test_a_replica_cannot_write_its_keys():
    name = containers("musterd")[0]
    for folder in ("ca", "tls", "proxy"):
        done = run("docker", "exec", name, "touch", f"/var/lib/muster/{folder}/mark", check=False)
        assert "Read-only" in done.stderr
    listed = docker("exec", name, "ls", "/var/lib/muster/ca")
    assert "root.key" not in listed and "issuing-1.key" in listed


def test_no_secret_is_in_the_environment_or_on_a_command_line():
    secrets = [f.read_text().strip() for f in (STATE / "secrets" / "database_password", STATE / "admin-token", STATE / "token", STATE / "prometheus" / "token")]
    assert all(len(s) > 20 for s in secrets)
    for name in containers():
        told = docker("inspect", name)
        assert not [s for s in secrets if s in told]


def test_only_the_doors_are_published():
    published = {port for name in containers() for port, bound in inspect(name)["NetworkSettings"]["Ports"].items() if bound}
    assert published == {"8443/tcp", "9443/tcp", "8883/tcp", "9090/tcp"}


@pytest.mark.parametrize("network", ["edge", "data", "watch"])
def test_the_inner_networks_lead_nowhere(network):
    assert docker("network", "inspect", "-f", "{{.Internal}}", f"{PROJECT}_{network}").strip() == "true"


def test_the_image_has_what_it_needs_and_no_more():
    name = containers("musterd")[0]
    image = inspect(name)["Image"]
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001" and config["Entrypoint"] == ["musterd"]
    assert config["Healthcheck"]["Test"] == ["CMD", "musterd", "healthcheck", "--config", "/etc/muster/musterd.conf"]
    # whoever the container runs as must get through to what is mounted below
    assert docker("exec", name, "stat", "-c", "%a", "/var/lib/muster").strip() == "755"
    for tool in ("gcc", "curl", "meson", "psql", "python3"):
        assert run("docker", "exec", name, "which", tool, check=False).returncode != 0, tool
    for program in ("musterd", "muster"):
        assert docker("exec", name, program, "--version").startswith(f"{program} ")
