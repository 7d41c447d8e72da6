"""The files of examples/deploy: their form, and their shell parts, which are run.

Each file is taken apart into what its platform would run, in order. One driver runs
that against a server and a small project, with the platform's own programs replaced.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
from projects import MAIL, NAME, PLAIN, Release
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parent.parent / "examples" / "deploy"
# The release that is deployed; some files name it themselves.
VERSION = "v42"
# Tries of a Job in these tests; the file's own backoffLimit would take minutes.
TRIES = 2


@dataclass(frozen=True)
class Part:
    """
    One thing that a platform runs.

    `after` tells that it runs once no old pod is left. `again` are the exit codes
    after which the platform runs it again, `warned` those that it takes for a warning.
    """

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    after: bool = False
    again: frozenset[int] = frozenset()
    warned: frozenset[int] = frozenset()


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML text, by YAML 1.2: `on` is no truth value."""
    return [d for d in YAML(typ="safe").load_all(text) if d is not None]


def read(file: str) -> str:
    """Return the text of an example."""
    return (DEPLOY / file).read_text()


# -- from a file to what its platform runs -------------------------------------------


def github(url: str) -> list[Part]:
    """Return the `run` steps of the workflow's job."""
    (workflow,) = documents(read("github-actions.yml"))
    (job,) = workflow["jobs"].values()
    given = {"github.ref_name": VERSION, "secrets.DATABASE_URL": url}
    env = {
        name: re.sub(r"\$\{\{ (.+?) \}\}", lambda m: given[m[1]], value)
        for name, value in job["env"].items()
    }
    runs = [step["run"] for step in job["steps"] if "run" in step]
    # The shell that GitHub gives to a step that names none.
    return [
        Part(("bash", "-e", "-c", text), env, after="post-deploy" in text)
        for text in runs
    ]


def gitlab(url: str) -> list[Part]:
    """Return the scripts of the jobs, stage by stage."""
    (found,) = documents(read("gitlab-ci.yml"))
    # What the runner and the project's variables give to each job.
    env = {"CI_COMMIT_TAG": VERSION, "DATABASE_URL": url}
    own = {n: env[v.removeprefix("$")] for n, v in found["variables"].items()}
    jobs = [j for j in found.values() if isinstance(j, dict) and "script" in j]
    jobs.sort(key=lambda job: found["stages"].index(job["stage"]))
    parts = []
    for job in jobs:
        assert found[job["extends"]]["resource_group"]
        text = "\n".join(["set -eo pipefail", *job["script"]])
        codes = job.get("allow_failure", {}).get("exit_codes", [])
        codes = codes if isinstance(codes, list) else [codes]
        parts.append(
            Part(
                ("bash", "-c", text),
                {**env, **own},
                after="post-deploy" in text,
                warned=frozenset(codes),
            )
        )
    return parts


def job(found: Any, url: str, *, after: bool) -> Part:
    """Return what a Kubernetes Job runs, and after which codes it runs again."""
    (container,) = found["spec"]["template"]["spec"]["containers"]
    again: set[int] = set()
    for rule in found["spec"].get("podFailurePolicy", {}).get("rules", ()):
        codes = rule["onExitCodes"]
        assert (rule["action"], codes["operator"]) == ("FailJob", "NotIn")
        assert codes["containerName"] == container["name"]
        again |= set(codes["values"])
    env = {
        e["name"]: url if e.get("valueFrom", {}).get("secretKeyRef") else e["value"]
        for e in container["env"]
    }
    return Part(tuple(container["command"]), env, after=after, again=frozenset(again))


def kubernetes(url: str) -> list[Part]:
    """Return both Jobs, told apart by their labels."""
    before, after = documents(read("kubernetes-job.yaml"))
    assert before["metadata"]["labels"]["step"] == "pre-deploy"
    assert after["metadata"]["labels"]["step"] == "post-deploy"
    return [job(before, url, after=False), job(after, url, after=True)]


def rendered(template: str) -> str:
    """Render what the chart uses of Helm's templates: three values."""
    values = {
        ".Release.Name": "app",
        ".Chart.AppVersion": VERSION,
        ".Chart.AppVersion | quote": f'"{VERSION}"',
    }
    return re.sub(r"\{\{ (.+?) \}\}", lambda found: values[found[1]], template)


def helm(url: str) -> list[Part]:
    """Return the chart's Jobs, told apart by their hooks."""
    before, after = documents(rendered(read("helm-hooks.yaml")))
    name = "helm.sh/hook"
    assert before["metadata"]["annotations"][name] == "pre-install,pre-upgrade"
    assert after["metadata"]["annotations"][name] == "post-install,post-upgrade"
    return [job(before, url, after=False), job(after, url, after=True)]


def argo(url: str) -> list[Part]:
    """Return the Jobs before and after a sync."""
    before, after = documents(read("argo-cd.yaml"))
    name = "argocd.argoproj.io/hook"
    assert before["metadata"]["annotations"][name] == "PreSync"
    assert after["metadata"]["annotations"][name] == "PostSync"
    return [job(before, url, after=False), job(after, url, after=True)]


def compose(url: str) -> list[Part]:
    """Return the commands of the two services beside the application."""
    given = {"VERSION": VERSION, "DATABASE_URL": url}

    def filled(text: str) -> str:
        # `$$` is a `$` for the shell, `${NAME:?…}` a variable of compose's own.
        parts = [
            re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda found: given[found[1]], part)
            for part in text.split("$$")
        ]
        # Compose refuses any other.
        assert not any("$" in part for part in parts)
        return "$".join(parts)

    (found,) = documents(read("compose.yaml"))
    services = found["services"]
    assert services["app"]["depends_on"] == {
        "pre-deploy": {"condition": "service_completed_successfully"}
    }
    assert services["post-deploy"]["profiles"]
    return [
        Part(
            tuple(map(filled, services[name]["command"])),
            {n: filled(v) for n, v in services[name]["environment"].items()},
            after=name == "post-deploy",
        )
        for name in ("pre-deploy", "post-deploy")
    ]


def procfile(url: str) -> list[Part]:
    """Return the release command, and the one that is run by hand."""
    found = dict(
        re.match(r"([\w-]+): (.+)", line).groups()  # type: ignore[union-attr]
        for line in read("Procfile").splitlines()
        if not line.startswith("#")
    )
    env = {"HEROKU_SLUG_COMMIT": VERSION, "DATABASE_URL": url}
    return [
        Part(("sh", "-c", found["release"]), env),
        Part(("sh", "-c", found["post-deploy"]), env, after=True),
    ]


FILES: dict[str, Callable[[str], list[Part]]] = {
    "github-actions.yml": github,
    "gitlab-ci.yml": gitlab,
    "kubernetes-job.yaml": kubernetes,
    "helm-hooks.yaml": helm,
    "argo-cd.yaml": argo,
    "compose.yaml": compose,
    "Procfile": procfile,
}
# These roll out themselves.
PIPELINES = ("github-actions.yml", "gitlab-ci.yml")
# These are run by a person, who is told by exit 3 that a retire is held; elsewhere it
# would take a release that is out for a failed one.
BY_HAND = ("compose.yaml", "Procfile")
every_file = pytest.mark.parametrize("file", FILES)


def test_every_file_is_listed() -> None:
    """A file without a place in the driver, or in the README, is not checked."""
    there = {p.name for p in DEPLOY.iterdir()} - {"README.md"}
    assert there == set(FILES)
    assert all(f"`{name}`" in read("README.md") for name in there)


# -- the form of a file --------------------------------------------------------------

VENDORED = {
    "github-actions.yml": "vendor.github-workflows",
    "gitlab-ci.yml": "vendor.gitlab-ci",
    "compose.yaml": "vendor.compose-spec",
}


#: The first version that has podFailurePolicy for all, and a late one.
KUBERNETES = ("1.31", "1.34")


@pytest.mark.parametrize("file", VENDORED)
def test_a_file_has_the_form_of_its_platform(file: str) -> None:
    """It is valid by the platform's own schema."""
    done = subprocess.run(
        [
            Path(sys.executable).parent / "check-jsonschema",
            *("--builtin-schema", VENDORED[file], DEPLOY / file),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "file", ["kubernetes-job.yaml", "helm-hooks.yaml", "argo-cd.yaml"]
)
def test_jobs_have_the_form_of_the_api(file: str, version: str) -> None:
    """Each Job is valid by Kubernetes' own schema, and by what its server asks for."""
    text = read(file)
    jobs = documents(rendered(text) if file == "helm-hooks.yaml" else text)
    assert len(jobs) == 2
    for one in jobs:
        # Strict: a field that the API does not know is an error.
        kubernetes_validate.validate(one, version, strict=True)
        assert {"name", "generateName"} & one["metadata"].keys()
        assert re.fullmatch(
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?-?",
            one["metadata"].get("name") or one["metadata"]["generateName"],
        )
        # The server refuses podFailurePolicy with any other.
        assert one["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("backoffLimit", "many"),
        ("podFailurePolice", {}),
        ("podFailurePolicy", {"rules": [{"onExitCodes": {"values": [3]}}]}),
    ],
)
def test_the_schema_of_jobs_finds_what_is_wrong(where: str, wrong: object) -> None:
    """A wrong type, a field that there is not, and one that is missing."""
    one, _ = documents(read("kubernetes-job.yaml"))
    one["spec"][where] = wrong
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, KUBERNETES[-1], strict=True)


# -- what a file runs ----------------------------------------------------------------

#: Instead of waiting: what a person does meanwhile.
SLEEP = """#!/bin/sh
echo "$@" >> "{folder}/slept"
{meanwhile}
"""
#: A release may only be rolled out where the gate lets it.
KUBECTL = f"""#!/bin/sh
echo "$@" >> "{{folder}}/rolled"
migrator hook gate --release {VERSION} > /dev/null
"""


@dataclass(frozen=True)
class Platform:
    """A machine on which a file's parts are run."""

    release: Release

    @classmethod
    def make(cls, release: Release, meanwhile: str = "true") -> "Platform":
        """Put the platform's programs in place."""
        made = cls(release)
        made.bin.mkdir()
        programs = {"sleep": SLEEP, "kubectl": KUBECTL, "pip": "#!/bin/sh\n"}
        for name, text in programs.items():
            path = made.bin / name
            path.write_text(text.format(folder=release.folder, meanwhile=meanwhile))
            path.chmod(0o755)
        return made

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.release.folder / "bin"

    @property
    def url(self) -> str:
        """The database, as the release's env.py reads it."""
        return self.release.env["DATABASE_URL"]

    def noted(self, name: str) -> list[str]:
        """Return what a program noted of its calls."""
        path = self.release.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def deploy(self, parts: list[Part]) -> tuple[int, str]:
        """Run parts until one fails; return its exit code, and what all printed."""
        printed = ""
        for part in parts:
            for number in range(TRIES):
                if number:
                    waits = [self.bin / "sleep", "10"]
                    subprocess.run(waits, cwd=self.release.folder, env=self._env({}))
                done = subprocess.run(
                    part.words,
                    cwd=self.release.folder,
                    env=self._env(part.env),
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                printed += done.stdout + done.stderr
                if done.returncode not in part.again:
                    break
            if done.returncode and done.returncode not in part.warned:
                return done.returncode, printed
        return 0, printed

    def _env(self, own: Mapping[str, str]) -> dict[str, str]:
        env = self.release.env
        path = f"{self.bin}{os.pathsep}{env['PATH']}"
        # What a file does not hand on, a part does not have.
        return {"PATH": path, "HOME": env["HOME"], **own}


@pytest.fixture
def first(database: str, tmp_path: Path) -> Release:
    """Give a first release that is deployed, and whose table has rows."""
    made = Release.make("v1", tmp_path, database, PLAIN)
    made.hook("pre-deploy")
    made.hook("post-deploy")
    made.fill()
    return made


def marks(url: str) -> list[tuple[str, bool]]:
    """Return the deployments that are marked, and whether each has ended."""
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT release, ended_at IS NOT NULL FROM migrator.deployments ORDER BY id"
        ).fetchall()


@every_file
def test_a_file_deploys_a_release_once_it_may(
    file: str, first: Release, tmp_path: Path
) -> None:
    """It waits while the change is paused, goes on, rolls out, and sets the end."""
    release = Release.make(VERSION, tmp_path, first.url, PLAIN, NAME)
    release.run("expand")
    release.run("pause", "r2")
    url = release.env["DATABASE_URL"]
    resume = f"DATABASE_URL='{url}' migrator resume r2 > /dev/null"
    platform = Platform.make(release, resume)
    code, printed = platform.deploy(FILES[file](url))
    assert code == 0, printed
    assert len(platform.noted("slept")) == 1
    assert bool(platform.noted("rolled")) is (file in PIPELINES)
    assert marks(first.url) == [("v1", True), (VERSION, True)]
    assert release.hook("gate")["changes"][0]["state"] == "verified"


@every_file
def test_a_file_ends_at_an_error(file: str, first: Release, tmp_path: Path) -> None:
    """A database that is not there is no reason to wait: nothing is rolled out."""
    release = Release.make(VERSION, tmp_path, first.url, PLAIN, NAME)
    platform = Platform.make(release)
    code, printed = platform.deploy(
        FILES[file]("postgresql+psycopg://nobody@127.0.0.1:1/none")
    )
    assert code != 0
    assert "No connection to the database" in printed
    assert platform.noted("slept") == []
    assert platform.noted("rolled") == []
    assert marks(first.url) == [("v1", True)]


@every_file
def test_a_retire_that_is_held_is_told(
    file: str, first: Release, tmp_path: Path
) -> None:
    """An old session holds it: that fails no deployment, but is told."""
    second = Release.make("v2", tmp_path, first.url, PLAIN, NAME)
    release = Release.make(VERSION, tmp_path, first.url, PLAIN, NAME, MAIL)
    with psycopg.connect(first.url, application_name="billing"):
        second.hook("pre-deploy")
        second.hook("post-deploy")
        release.hook("pre-deploy")
        platform = Platform.make(release)
        after = [p for p in FILES[file](platform.url) if p.after]
        code, printed = platform.deploy(after)
    assert code == (3 if file in BY_HAND else 0), printed
    assert "billing" in printed
    assert marks(first.url)[-1] == (VERSION, True)
    assert platform.noted("slept") == []
