"""Reads and changes an emulated Artifactory with dohq-artifactory.

Usage: dohq.py BASE_URL USER PASSWORD. Expects the image team/app:1.0 (two platforms) in
docker-local and an empty docker-prod. Prints one line per check; any difference is an exception.
"""

import sys

from artifactory import ArtifactoryPath

base, user, password = sys.argv[1:]
root = ArtifactoryPath(base, auth=(user, password))


def path(text):
    return ArtifactoryPath(f"{base}/{text}", auth=(user, password))


repositories = {repo.name: type(repo).__name__ for repo in root.get_repositories()}
print("repositories", repositories)
assert repositories["docker-local"] == "RepositoryLocal", repositories

tag = path("docker-local/team/app/1.0")
assert tag.is_dir() and not tag.is_file()
names = sorted(child.name for child in tag)
print("list", names)
assert names == ["list.manifest.json"], names

listing = tag / "list.manifest.json"
stat = listing.stat()
print("stat", stat.sha256, stat.size, stat.mime_type)
body = listing.read_bytes()
assert stat.size == len(body)
assert not path("docker-local/team/none").exists()

properties = listing.properties
print("properties", sorted(properties))
assert properties["docker.repoName"] == ["team/app"]
assert properties["docker.manifest.digest"] == [f"sha256:{stat.sha256}"]

listing.update_properties({"checked": ["yes", "twice"]})
assert sorted(listing.properties["checked"]) == ["twice", "yes"]
changed = dict(listing.properties, by=["dohq; with, odd = signs"])
listing.properties = changed
assert listing.properties["by"] == ["dohq; with, odd = signs"], listing.properties
listing.del_properties(["checked"])
assert "checked" not in listing.properties
print("properties changed")

rows = root.aql(
    "items.find",
    {"repo": "docker-local", "$or": [{"name": "manifest.json"}, {"name": "list.manifest.json"}]},
    ".include",
    ["repo", "path", "name", "sha256", "size", "type"],
    ".sort",
    {"$asc": ["path"]},
    ".limit",
    10,
)
print("aql", len(rows), sorted({row["name"] for row in rows}))
assert len(rows) == 3, rows
top = [row for row in rows if row["path"] == "team/app/1.0"]
assert [row["sha256"] for row in top] == [stat.sha256]
assert root.from_aql(top[0]).stat().sha256 == stat.sha256
by_property = root.aql("items.find", {"@by": {"$match": "dohq*"}})
assert [row["name"] for row in by_property] == ["list.manifest.json"], by_property

root.promote_docker_image("docker-local", "docker-prod", "team/app", "1.0", copy=True)
copied = path("docker-prod/team/app/1.0/list.manifest.json")
assert copied.stat().sha256 == stat.sha256
platforms = [child.name for child in path("docker-prod/team/app") if child.name.startswith("sha256:")]
print("promoted", len(platforms))
assert len(platforms) == 2, platforms

downloads = listing.download_stats().download_count
print("downloads", downloads)
assert downloads == 1, downloads
