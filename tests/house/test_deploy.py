"""What is deployed agrees with itself and with the server: Kubernetes manifests, compose file, image."""
import configparser
import os
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(os.environ.get("MUSTER_SOURCE_ROOT", pathlib.Path(__file__).resolve().parents[2]))
KUBERNETES = ROOT / "deploy" / "kubernetes"

# kind: its apiVersion and what its spec must and may have
KINDS = {
    "Namespace": ("v1", set(), set()),
    "ConfigMap": ("v1", set(), set()),
    "Secret": ("v1", set(), set()),
    "Service": ("v1", {"selector", "ports"}, {"type", "externalTrafficPolicy"}),
    "Deployment": ("apps/v1", {"selector", "template", "replicas"}, {"strategy", "revisionHistoryLimit"}),
    "HorizontalPodAutoscaler": ("autoscaling/v2", {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics"}, {"behavior"}),
    "PodDisruptionBudget": ("policy/v1", {"selector"}, {"minAvailable", "maxUnavailable"}),
    "NetworkPolicy": ("networking.k8s.io/v1", {"podSelector", "policyTypes", "ingress", "egress"}, set()),
    "Job": ("batch/v1", {"template"}, {"backoffLimit", "ttlSecondsAfterFinished"}),
}
POD = {"automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds", "securityContext", "topologySpreadConstraints",
       "initContainers", "containers", "volumes", "restartPolicy"}
CONTAINER = {"name", "image", "command", "args", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "securityContext",
             "resources", "volumeMounts"}
PROBE = {"httpGet", "periodSeconds", "failureThreshold", "timeoutSeconds"}
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")


class Unique(yaml.SafeLoader):
    """A key that is given twice is an error, not the last one's victory."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(k) for k, _ in node.value if k.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key twice among {keys}"
        return super().construct_mapping(node, deep)


def load(file):
    return [d for d in yaml.load_all(file.read_text(), Unique) if d]


OBJECTS = [(f.name, d) for f in sorted(KUBERNETES.glob("*.yaml")) for d in load(f)]


def named(kind, name=None):
    (found,) = [d for _, d in OBJECTS if d["kind"] == kind and (name is None or d["metadata"]["name"] == name)]
    return found


def pods():
    return [(d["metadata"]["name"], d["spec"]["template"]) for _, d in OBJECTS if d["kind"] in ("Deployment", "Job")]


def configuration():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(named("ConfigMap")["data"]["musterd.conf"])
    return parser


def known_keys():
    return {f"{s}.{k}" for s, k in re.findall(r"^(?:TEXT|NUMBER)\((\w+), (\w+)", (ROOT / "server/ops/config_table.h").read_text(), re.M)}


def test_every_kind_is_there():
    assert {d["kind"] for _, d in OBJECTS} == set(KINDS)


@pytest.mark.parametrize("file, object", OBJECTS, ids=[f"{d['kind']}-{d['metadata']['name']}" for _, d in OBJECTS])
def test_an_object_is_well_formed(file, object):
    version, must, may = KINDS[object["kind"]]
    assert object["apiVersion"] == version
    assert NAME.match(object["metadata"]["name"])
    assert object["kind"] == "Namespace" or object["metadata"]["namespace"] == named("Namespace")["metadata"]["name"]
    assert set(object) <= {"apiVersion", "kind", "metadata", "spec", "data", "stringData", "type"}
    spec = set(object.get("spec", {}))
    assert must <= spec <= must | may
    assert set(object["metadata"]) <= {"name", "namespace", "labels"}


@pytest.mark.parametrize("name, template", pods(), ids=[n for n, _ in pods()])
def test_a_pod_is_hardened_and_complete(name, template):
    spec = template["spec"]
    assert set(spec) <= POD and spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    volumes = {v["name"] for v in spec["volumes"]}
    for c in spec["initContainers"] + spec["containers"]:
        assert set(c) <= CONTAINER and {"name", "image", "securityContext", "resources"} <= set(c)
        assert c["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert "memory" in c["resources"]["limits"] and {"cpu", "memory"} <= set(c["resources"]["requests"])
        assert {m["name"] for m in c["volumeMounts"]} <= volumes
        assert not c["image"].endswith(":latest") and ":" in c["image"]
    used = {m["name"] for c in spec["initContainers"] + spec["containers"] for m in c["volumeMounts"]}
    assert used == volumes


def test_what_is_mounted_exists():
    secrets = {d["metadata"]["name"]: set(d["stringData"]) for _, d in OBJECTS if d["kind"] == "Secret"}
    maps = {d["metadata"]["name"] for _, d in OBJECTS if d["kind"] == "ConfigMap"}
    for _, template in pods():
        volumes = {v["name"]: v for v in template["spec"]["volumes"]}
        assert {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} <= maps
        for c in template["spec"]["initContainers"]:
            folders = {m["mountPath"]: volumes[m["name"]]["secret"]["secretName"] for m in c["volumeMounts"] if "secret" in volumes[m["name"]]}
            sources = [a for a in c["command"] if a.startswith("/secrets/")]
            assert sources
            for source in sources:
                folder, key = source.rsplit("/", 1)
                assert key in secrets[folders[folder]], source


def test_private_files_are_where_the_configuration_says():
    wanted = {v for section in configuration().values() for v in section.values() if v.startswith("/run/muster/")}
    spec = named("Deployment")["spec"]["template"]["spec"]
    made = set()
    for c in spec["initContainers"]:
        target = c["command"][c["command"].index("-t") + 1]
        made |= {target} | {f"{target}/{s.rsplit('/', 1)[1]}" for s in c["command"] if s.startswith("/secrets/")}
        assert c["command"][c["command"].index("-m") + 1] == "0600"
    assert wanted and wanted <= made


def test_the_configuration_has_known_keys_only():
    given = {f"{s}.{k}" for s in configuration().sections() for k in configuration()[s]}
    assert given and given <= known_keys()
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "deploy/compose/muster/musterd.conf")
    given = {f"{s}.{k}" for s in parser.sections() for k in parser[s]}
    assert given and given <= known_keys()


def selects(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


def test_selectors_meet_the_labels_of_the_pods():
    template = named("Deployment")["spec"]["template"]
    labels, job = template["metadata"]["labels"], named("Job")["spec"]["template"]["metadata"]["labels"]
    assert named("Deployment")["spec"]["selector"]["matchLabels"] == labels
    strict = [d["spec"]["selector"] for _, d in OBJECTS if d["kind"] == "Service"] + [named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    strict += [c["labelSelector"]["matchLabels"] for c in template["spec"]["topologySpreadConstraints"]]
    for selector in strict:
        assert selects(selector, labels) and not selects(selector, job)
    policy = named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selects(policy, labels) and selects(policy, job)


def test_ports_are_the_servers():
    (c,) = named("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {p["name"]: p["containerPort"] for p in c["ports"]}
    table = (ROOT / "server/ops/config_table.h").read_text()
    for name, key in (("devices", "device_port"), ("admin", "admin_port")):
        default = re.search(rf"NUMBER\(listen, {key}, (\d+)", table).group(1)
        assert ports[name] == int(configuration()["listen"].get(key, default))
    for _, d in OBJECTS:
        if d["kind"] == "Service":
            assert all(p["targetPort"] in ports and 0 < p["port"] < 65536 for p in d["spec"]["ports"])
    allowed = {p["port"] for rule in named("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]}
    assert allowed == set(ports.values())


def test_probes_ask_for_routes_that_exist():
    (c,) = named("Deployment")["spec"]["template"]["spec"]["containers"]
    health = (ROOT / "server/proto/health/health.c").read_text()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert set(c[probe]) <= PROBE
        get = c[probe]["httpGet"]
        assert get["scheme"] == "HTTPS" and f'"{get["path"]}"' in health
        assert get["port"] in {p["name"] for p in c["ports"]}
    assert c["livenessProbe"]["httpGet"]["path"] == "/healthz", "a database that is away is no reason to kill anybody"


def test_there_is_time_to_drain():
    spec = named("Deployment")["spec"]["template"]["spec"]
    (c,) = spec["containers"]
    wait = int(c["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > wait + int(configuration()["listen"]["drain_timeout_s"])


def test_the_autoscaler_scales_the_deployment_and_stays_disruptable():
    scaler = named("HorizontalPodAutoscaler")["spec"]
    target = named("Deployment")
    assert scaler["scaleTargetRef"] == {"apiVersion": target["apiVersion"], "kind": "Deployment", "name": target["metadata"]["name"]}
    assert named("PodDisruptionBudget")["spec"]["minAvailable"] < scaler["minReplicas"] <= target["spec"]["replicas"] <= scaler["maxReplicas"]
    (c,) = target["spec"]["template"]["spec"]["containers"]
    assert "cpu" in c["resources"]["requests"], "utilization is a share of what is requested"


def test_images_are_of_this_version():
    version = re.search(r"version: '([0-9.]+)'", (ROOT / "meson.build").read_text()).group(1)
    images = {c["image"] for _, t in pods() for c in t["spec"]["initContainers"] + t["spec"]["containers"]}
    assert images == {f"muster:{version}"}
    assert named("Job")["metadata"]["name"].endswith(version)


# compose file and image

def test_every_service_is_hardened():
    services = load(ROOT / "deploy/docker-compose.yml")[0]["services"]
    assert {"postgres", "mosquitto", "musterd", "haproxy", "prometheus", "migrate", "init"} == set(services)
    for name, s in services.items():
        assert s["read_only"] and s["cap_drop"] == ["ALL"] and s["security_opt"] == ["no-new-privileges:true"], name
        assert s["mem_limit"] and s["pids_limit"], name
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "oom_score_adj"} & set(s), name
    for name in ("musterd", "haproxy"):
        assert services[name]["ulimits"]["nofile"] == "${SERVER_NOFILE:-65536}"


def test_a_replica_has_room_for_its_threads_and_time_to_drain():
    musterd = load(ROOT / "deploy/docker-compose.yml")[0]["services"]["musterd"]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "deploy/compose/muster/musterd.conf")
    assert musterd["pids_limit"] > int(parser["listen"]["max_connections"]) + 128
    drain = re.search(r"drain_timeout_s, (\d+)", (ROOT / "server/ops/config_table.h").read_text()).group(1)
    assert int(musterd["stop_grace_period"].rstrip("s")) > int(drain)


def test_the_balancer_that_is_believed_is_the_one_that_runs():
    compose = load(ROOT / "deploy/docker-compose.yml")[0]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "deploy/compose/muster/musterd.conf")
    assert compose["services"]["haproxy"]["networks"]["edge"]["ipv4_address"] == parser["listen"]["proxy_protocol_from"]


def test_the_image_is_built_with_what_building_takes():
    wanted = set(re.search(r'MUSTER_PACKAGES="([^"]+)"', (ROOT / "deploy/lib.sh").read_text()).group(1).split())
    docker = (ROOT / "deploy/Dockerfile").read_text()
    build = docker[docker.index("AS build"):docker.index("WORKDIR")]
    assert {p for p in wanted if p.endswith("-dev")} <= set(build.split())
    assert not re.search(r"^# *syntax=|@sha256:|COPY .*--link|--mount=", docker, re.M)
