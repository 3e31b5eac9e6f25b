"""Tests the Kubernetes manifests: they are valid, restrictive, and consistent with the image and the policy."""

import re
import unittest
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from packages import ROOT

FOLDER = ROOT / "deploy/kubernetes"
# The newest version that the pinned schemas have.
VERSION = "1.37"


def load(name: str) -> Any:
    """Loads a manifest."""
    return yaml.safe_load((FOLDER / name).read_text())


def patched(base: Any, patch: Any) -> Any:
    """Merges a patch like kustomize, as far as the patches need it: lists of named objects, and plain values."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: patched(base.get(key), value) for key, value in patch.items()}
    if isinstance(base, list) and isinstance(patch, list) and all(isinstance(item, dict) for item in patch):
        names = {item["name"]: item for item in patch}
        assert names.keys() <= {item["name"] for item in base}, f"patches what is not there: {names}"
        return [patched(item, names.get(item["name"], {})) for item in base]
    return patch


class Kubernetes(unittest.TestCase):
    def setUp(self) -> None:
        self.daemons = load("daemonset.yaml")
        self.capture = patched(self.daemons, load("capture/daemonset.yaml"))
        self.worker_ids = patched(self.daemons, load("worker-ids/daemonset.yaml"))
        self.netns = patched(self.daemons, load("netns/daemonset.yaml"))
        self.consumer = load("consumer.yaml")
        self.netns_consumer = load("netns-consumer.yaml")

    def test_manifests_match_the_kubernetes_schemas(self) -> None:
        consumers = (self.consumer, self.netns_consumer)
        for manifest in (load("namespace.yaml"), self.daemons, self.capture, self.netns, self.worker_ids, *consumers):
            with self.subTest(manifest["kind"]):
                kubernetes_validate.validate(manifest, VERSION, strict=True)
        wrong = patched(self.daemons, {"spec": {"template": {"spec": {"hostNetwrk": True}}}})
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSION, strict=True)

    def test_kustomizations_list_all_files(self) -> None:
        named = {"consumer.yaml", "netns-consumer.yaml"}
        for folder in ("", "capture/", "netns/", "worker-ids/"):
            kustomization = load(f"{folder}kustomization.yaml")
            named.add(f"{folder}kustomization.yaml")
            (generator,) = kustomization["configMapGenerator"]
            self.assertEqual(generator["name"], "sockbroker")
            files = [*kustomization["resources"], *generator["files"]]
            files += [patch["path"] for patch in kustomization.get("patches", [])]
            named |= {folder + file for file in files if file != ".."}
        there = {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file()}
        self.assertEqual(named, there)

    def containers(self, manifest: Any) -> list[Any]:
        pod = manifest["spec"].get("template", manifest)["spec"]
        return [*pod.get("initContainers", []), *pod["containers"]]

    def test_each_container_has_only_the_capabilities_that_it_needs(self) -> None:
        added = {}
        manifests = {
            "base": self.daemons, "capture": self.capture, "netns": self.netns, "worker-ids": self.worker_ids,
            "consumer": self.consumer, "netns-consumer": self.netns_consumer,
        }
        for name, manifest in manifests.items():
            for container in self.containers(manifest):
                context = container["securityContext"]
                self.assertEqual(context["capabilities"]["drop"], ["ALL"])
                self.assertIs(context["readOnlyRootFilesystem"], True)
                self.assertIn("memory", container["resources"]["limits"])
                added[name, container["name"]] = context["capabilities"].get("add", [])
                # A program of an unprivileged user gains a capability only from its file.
                gains = container["name"] == "sockbrokerd" and added[name, container["name"]] != []
                self.assertIs(context["allowPrivilegeEscalation"], gains)
        self.assertEqual(added, {
            ("base", "folder"): ["CHOWN"], ("base", "sockbrokerd"): [],
            ("capture", "folder"): ["CHOWN"], ("capture", "sockbrokerd"): ["NET_RAW"],
            ("worker-ids", "folder"): ["CHOWN"], ("worker-ids", "sockbrokerd"): ["SETUID", "SETGID", "KILL"],
            ("netns", "folder"): ["CHOWN"],
            ("netns", "sockbrokerd"): ["SYS_ADMIN", "NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"],
            ("consumer", "consumer"): [], ("netns-consumer", "ping"): [], ("netns-consumer", "consumer"): [],
        })

    def test_pods_are_unprivileged_with_the_default_seccomp_profile(self) -> None:
        for manifest in (self.daemons["spec"]["template"], self.netns["spec"]["template"], self.consumer, self.netns_consumer):
            context = manifest["spec"]["securityContext"]
            self.assertIs(context["runAsNonRoot"], True)
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertIs(manifest["spec"]["automountServiceAccountToken"], False)
            self.assertNotIn("hostPID", manifest["spec"])
        # The user ID of the broker is allowed everything.
        self.assertNotEqual(self.consumer["spec"]["securityContext"]["runAsUser"],
                            self.daemons["spec"]["template"]["spec"]["securityContext"]["runAsUser"])

    def test_image_manifests_and_policy_are_consistent(self) -> None:
        recipe = (ROOT / "deploy/container/Containerfile").read_text()
        context = self.daemons["spec"]["template"]["spec"]["securityContext"]
        self.assertIn(f"USER {context['runAsUser']}:{context['runAsGroup']}", recipe)
        self.assertEqual(self.consumer["spec"]["securityContext"]["supplementalGroups"], [context["runAsGroup"]])
        self.assertIn(f"gids = [{context['runAsGroup']}]", (FOLDER / "policy.toml").read_text())
        (broker,) = self.daemons["spec"]["template"]["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertEqual(broker[probe]["exec"]["command"], ["/usr/bin/sockbroker", "info", "--json"])
        # If the broker ends, all users lose their sockets.
        life = broker["livenessProbe"]
        self.assertGreaterEqual(life["periodSeconds"] * life["failureThreshold"], 60)
        folders = {volume["hostPath"]["path"]
                   for pod in (self.daemons["spec"]["template"], self.consumer)
                   for volume in pod["spec"]["volumes"] if "hostPath" in volume}
        self.assertEqual(folders, {"/run/sockbroker"})
        for mount in broker["volumeMounts"]:
            self.assertIn(Path(mount["mountPath"]), [Path("/run/sockbroker"), Path("/etc/sockbroker")])

    def test_workers_have_ids_that_nothing_else_on_the_node_has(self) -> None:
        base, own = ((FOLDER / f"{name}sockbrokerd.toml").read_text() for name in ("", "worker-ids/"))
        self.assertTrue(own.startswith(base))
        (ids,) = re.findall(r'^worker_ids = "(\d+)-(\d+)"$', own, re.MULTILINE)
        first, last = map(int, ids)
        self.assertEqual(last - first, 65535)
        # Beyond the ids of containers of systemd, and numbers that are positive everywhere: uids.systemd.io.
        self.assertTrue(1879048191 < first < last < 2147483647)

    def test_role_only_adds_to_the_policy(self) -> None:
        base = (FOLDER / "policy.toml").read_text()
        for role in ("capture", "netns"):
            self.assertTrue((FOLDER / role / "policy.toml").read_text().startswith(base), role)

    def test_a_pod_for_its_own_namespace_has_the_groups_of_the_policy(self) -> None:
        groups = self.netns_consumer["spec"]["securityContext"]["supplementalGroups"]
        policy = (FOLDER / "netns/policy.toml").read_text()
        for group in groups:
            self.assertIn(f"gids = [{group}]", policy)
        self.assertNotIn("hostNetwork", self.netns_consumer["spec"])
