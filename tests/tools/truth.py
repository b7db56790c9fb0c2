#!/usr/bin/env python3
"""The packages of a merged root file system, from tools that are not ours.

    truth.py ROOT [OWNED]

Prints type, name, version, source name, source version (tab-separated, sorted, distinct).

deb     dpkg-query over var/lib/dpkg/status, and the fields of var/lib/dpkg/status.d/*. Of the
        states, all but `not-installed` and `config-files` count: in these two the package's own
        files are gone from the disk, in every other (`installed`, `unpacked`, `half-configured`,
        `half-installed`, `triggers-awaited`, `triggers-pending`) at least some are there.
npm     package.json directly in node_modules/NAME or node_modules/@SCOPE/NAME, if it has a name and a version.
pypi    the headers of *.dist-info/METADATA, *.egg-info/PKG-INFO and *.egg-info; names as written.
apk     the fields of lib/apk/db/installed; the source is the origin.
golang  `go version -m`: the main module unless its version is (devel), the dependencies with replacements
        applied, and `stdlib` with Go's version.

OWNED, if given, is a file to write the pypi and npm rows into whose file belongs to a dpkg package: type, name,
version, path, package. A lister may leave such rows to the dpkg package.
"""
import email
import glob
import json
import os
import re
import subprocess
import sys

NPM = re.compile(r'(^|/)node_modules/(@[^/]+/)?[^/]+/package\.json$')
PYPI = re.compile(r'\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)$')


def read(path):
    with open(path, encoding='utf-8', errors='replace') as f:
        return f.read()


def dpkg(root):
    admin = os.path.join(root, 'var/lib/dpkg')
    if os.path.exists(admin + '/status'):
        form = '${db:Status-Status}\t${Package}\t${Version}\t${source:Package}\t${source:Version}\n'
        out = subprocess.run(['dpkg-query', '--admindir=' + admin, '-W', '-f', form], check=True, capture_output=True, text=True)
        for line in out.stdout.splitlines():
            state, *row = line.split('\t')
            if state not in ('not-installed', 'config-files'):
                yield ('deb', *row)
    for path in glob.glob(admin + '/status.d/*'):
        if not path.endswith('.md5sums'):
            f = email.message_from_string(read(path))
            source = re.fullmatch(r'(\S+)(?: \((.*)\))?', f.get('Source', f['Package']))
            yield 'deb', f['Package'], f['Version'], source[1], source[2] or f['Version']


def apk(root):
    path = os.path.join(root, 'lib/apk/db/installed')
    if os.path.exists(path):
        for block in read(path).split('\n\n'):
            f = dict(line.split(':', 1) for line in block.splitlines() if line[1:2] == ':')
            if 'P' in f:
                yield 'apk', f['P'], f['V'], f.get('o', ''), f['V'] if 'o' in f else ''


def files(root):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                yield os.path.relpath(path, root), path


def languages(root, owner, owned):
    for rel, path in files(root):
        row = None
        if NPM.search(rel):
            try:
                f = json.loads(read(path))
            except ValueError:
                continue
            if isinstance(f, dict) and f.get('name') and isinstance(f.get('version'), str):
                row = 'npm', f['name'], f['version'], '', ''
        elif PYPI.search(rel):
            f = email.message_from_string(read(path))
            if f['Name'] and f['Version']:
                row = 'pypi', f['Name'], f['Version'], '', ''
        if row:
            yield row
            if rel in owner:
                owned.append((*row[:3], rel, owner[rel]))


def golang(root):
    out = subprocess.run(['go', 'version', '-m', root], check=True, capture_output=True, text=True).stdout
    last = None
    for line in out.splitlines():
        if not line.startswith('\t'):
            found = re.search(r': go(\d\S*)', line)
            if found:
                yield 'golang', 'stdlib', found[1], '', ''
            continue
        kind, *row = line.strip().split('\t')
        if kind in ('mod', 'dep', '=>'):
            if last and kind != '=>':
                yield last
            version = row[1] if len(row) > 1 else ''
            last = ('golang', row[0], version, '', '')
            if kind == 'mod' and version == '(devel)':
                last = None
    if last:
        yield last


def main():
    root = sys.argv[1]
    owner, owned = {}, []
    for path in glob.glob(root + '/var/lib/dpkg/info/*.list'):
        for line in read(path).splitlines():
            owner[line[1:]] = os.path.basename(path)[:-5]
    rows = {*dpkg(root), *apk(root), *languages(root, owner, owned), *golang(root)}
    for row in sorted(rows):
        print('\t'.join(row))
    if len(sys.argv) > 2:
        with open(sys.argv[2], 'w', encoding='utf-8') as f:
            f.writelines('\t'.join(row) + '\n' for row in sorted(owned))


main()
