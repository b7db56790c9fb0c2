#!/usr/bin/env python3
"""Packs layer folders into OCI layouts and `docker save` archives.

    pack.py SPEC LAYERS OUT

SPEC has a line an image, tab-separated: layout, repository:tag, kind, what it covers, then
PLATFORM=LAYER/FORM[/TAR],... for each platform, layers bottom first.

kind   oci          OCI manifest, an index if there are several platforms
       docker       Docker schema 2 manifest or manifest list, as a folder for skopeo's dir: transport (its oci: one
                    does not read these media types)
       attested     an OCI index with a BuildKit-style attestation manifest for each platform
       docker-save  OUT/<layout> is an archive as `docker save` (before Docker 25) writes it
FORM   tar, gzip, zstd; gzip-members (several members, one of them empty); gzip-blocks (pigz -i);
       zstd-skippable (several frames, skippable frames between and after); zstd-leading (a skippable frame first:
       allowed by RFC 8878, but a reader that looks for the magic number of a zstd frame alone misses it)
TAR    pax (default), or gnu, ustar, posix: by GNU tar, names start with ./

A layer is LAYERS/<name>/upper, an overlayfs upper folder: devices 0/0 become whiteouts, the opaque
attribute `.wh..wh..opq`. If SOURCE_DATE_EPOCH is set it is the time of everything; the output then
depends on names, contents and modes only. Blobs of layers are kept in LAYERS/<name> for the next run.
"""
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile

EPOCH = os.environ.get('SOURCE_DATE_EPOCH')
CREATED = '2024-01-01T00:00:00Z'
OCI = 'application/vnd.oci.image.'
DOCKER = 'application/vnd.docker.'
TYPES = {
    'oci': {'config': OCI + 'config.v1+json', 'manifest': OCI + 'manifest.v1+json', 'index': OCI + 'index.v1+json',
            'tar': OCI + 'layer.v1.tar', 'gzip': OCI + 'layer.v1.tar+gzip', 'zstd': OCI + 'layer.v1.tar+zstd'},
    'docker': {'config': DOCKER + 'container.image.v1+json', 'manifest': DOCKER + 'distribution.manifest.v2+json',
               'index': DOCKER + 'distribution.manifest.list.v2+json', 'tar': DOCKER + 'image.rootfs.diff.tar',
               'gzip': DOCKER + 'image.rootfs.diff.tar.gzip'},
}


def mtime(seconds):
    return int(EPOCH) if EPOCH else int(seconds)


def write_tar(src, dst):
    """Writes the upper folder `src` as a layer, whiteouts translated."""
    seen = {}  # (device, inode) to the first name, for hard links
    with tarfile.open(dst, 'w', format=tarfile.PAX_FORMAT) as tar:
        def marker(name):
            info = tarfile.TarInfo(name)
            info.mtime = mtime(1704067200)
            tar.addfile(info)

        def add(path, name):
            st = os.lstat(path)
            if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                return marker(os.path.join(os.path.dirname(name), '.wh.' + os.path.basename(name)))
            if stat.S_ISSOCK(st.st_mode):
                return None
            info = tar.gettarinfo(path, name)
            info.mtime, info.uname, info.gname = mtime(st.st_mtime), '', ''
            if info.isreg() or info.islnk():
                first = seen.setdefault((st.st_dev, st.st_ino), name)
                if first != name:
                    info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
                    return tar.addfile(info)
                info.type, info.size = tarfile.REGTYPE, st.st_size
                with open(path, 'rb') as f:
                    return tar.addfile(info, f)
            tar.addfile(info)
            if info.isdir():
                try:
                    opaque = os.getxattr(path, 'trusted.overlay.opaque') == b'y'
                except OSError:
                    opaque = False
                if opaque:
                    marker(name + '/.wh..wh..opq')
                for entry in sorted(os.listdir(path)):
                    add(os.path.join(path, entry), name + '/' + entry)
            return None

        for entry in sorted(os.listdir(src)):
            add(os.path.join(src, entry), entry)


def gnu_tar(src, dst, form):
    when = [f'--mtime=@{EPOCH}'] if EPOCH else []
    subprocess.run(['tar', '-C', src, f'--format={form}', '--sort=name', '--numeric-owner', '--owner=0', '--group=0',
                    *when, '-cf', dst, '.'], check=True)


def run(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


# pigz with one thread and with several differ, with two and more they do not; the same goes for zstd and -T1.
GZIP = ['pigz', '-n', '-p', '2', '-6', '-c']
ZSTD = ['zstd', '-q', '-T2', '-12', '-c']


def skippable(number, data):
    return struct.pack('<II', 0x184D2A50 + number, len(data)) + data


def compress(form, data):
    third = len(data) // 3 + 7  # not a multiple of the tar block
    parts = [data[:third], data[third:2 * third], data[2 * third:]]
    if form == 'tar':
        return data
    if form == 'gzip':
        return run(GZIP, data)
    if form == 'gzip-members':
        parts.insert(2, b'')
        return b''.join(run(['gzip', '-n', '-c'], part) for part in parts)
    if form == 'gzip-blocks':
        return run(GZIP + ['-i'], data)
    if form == 'zstd':
        return run(ZSTD, data)
    if form == 'zstd-skippable':
        frames = [run(ZSTD, part) for part in parts]
        return frames[0] + skippable(15, b'') + frames[1] + frames[2] + skippable(3, bytes(300))
    if form == 'zstd-leading':
        return skippable(0, b'a note before the first frame') + run(ZSTD, data)
    raise SystemExit(f'pack.py: unknown form {form}')


def sha256(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


class Layers:
    """Layer blobs, made once each and kept beside their folders."""

    def __init__(self, folder):
        self.folder = folder

    def get(self, spec):
        """Returns (path of the blob, its facts: diff, digest, size, form)."""
        name, form, *rest = spec.split('/')
        folder = os.path.join(self.folder, name)
        kept = os.path.join(folder, '-'.join(['blob', form, *rest]))
        with open(folder + '/key') as f:
            key = f.read() + str(EPOCH)
        if os.path.exists(kept + '.json'):
            with open(kept + '.json') as f:
                facts = json.load(f)
            if facts['key'] == key:
                return kept, facts
        tar = folder + '/layer.tar'
        if rest and rest[0] != 'pax':
            gnu_tar(folder + '/upper', tar, rest[0])
        else:
            write_tar(folder + '/upper', tar)
        with open(tar, 'rb') as f:
            data = f.read()
        os.unlink(tar)
        blob = compress(form, data)
        facts = {'key': key, 'diff': sha256(data), 'digest': sha256(blob), 'size': len(blob), 'form': form.split('-')[0]}
        with open(kept, 'wb') as f:
            f.write(blob)
        with open(kept + '.json', 'w') as f:
            json.dump(facts, f)
        return kept, facts


class Layout:
    """An OCI layout folder that grows a tag at a time."""

    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder + '/blobs/sha256')
        self.folder, self.manifests = folder, []
        with open(folder + '/oci-layout', 'w') as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')

    def path(self, digest):
        return f'{self.folder}/blobs/{digest.replace(":", "/")}'

    def put(self, media_type, value):
        data = value if isinstance(value, bytes) else json.dumps(value, separators=(',', ':')).encode()
        digest = sha256(data)
        with open(self.path(digest), 'wb') as f:
            f.write(data)
        return {'mediaType': media_type, 'digest': digest, 'size': len(data)}

    def put_layer(self, kept, facts, media_type):
        path = self.path(facts['digest'])
        if not os.path.exists(path):
            try:
                os.link(kept, path)
            except OSError:
                shutil.copyfile(kept, path)
        return {'mediaType': media_type, 'digest': facts['digest'], 'size': facts['size']}

    def put_manifest(self, media_type, value):
        return self.put(media_type, value)

    def add_tag(self, top, tag):
        self.manifests.append({**top, 'annotations': {'org.opencontainers.image.ref.name': tag}})

    def close(self):
        with open(self.folder + '/index.json', 'w') as f:
            json.dump({'schemaVersion': 2, 'mediaType': TYPES['oci']['index'], 'manifests': self.manifests}, f, separators=(',', ':'))


class Dir(Layout):
    """A folder of skopeo's dir: transport; holds one image."""

    def __init__(self, folder):
        super().__init__(folder)
        shutil.rmtree(folder + '/blobs')
        os.unlink(folder + '/oci-layout')
        with open(folder + '/version', 'w') as f:
            f.write('Directory Transport Version: 1.1\n')

    def path(self, digest):
        return f'{self.folder}/{digest[7:]}'

    def put_manifest(self, media_type, value):
        descriptor = self.put(media_type, value)
        os.rename(self.path(descriptor['digest']), self.path(descriptor['digest']) + '.manifest.json')
        return descriptor

    def add_tag(self, top, tag):
        os.rename(self.path(top['digest']) + '.manifest.json', self.folder + '/manifest.json')

    def close(self):
        pass


def config(arch, title, names, facts):
    history = []
    for name in names:
        history.append({'created': CREATED, 'created_by': f'RUN make {name} # buildkit', 'comment': 'buildkit.dockerfile.v0'})
    history.append({'created': CREATED, 'created_by': 'CMD ["/bin/sh"]', 'comment': 'buildkit.dockerfile.v0', 'empty_layer': True})
    return {'created': CREATED, 'architecture': arch, 'os': 'linux',
            'config': {'Env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], 'Cmd': ['/bin/sh'],
                       'Labels': {'org.opencontainers.image.title': title}},
            'rootfs': {'type': 'layers', 'diff_ids': [f['diff'] for f in facts]}, 'history': history}


def manifest(layout, layers, types, reference, platform):
    arch, specs = platform.split('=')
    specs = specs.split(',')
    blobs = [layers.get(spec) for spec in specs]
    value = config(arch, reference.split(':')[0], [s.split('/')[0] for s in specs], [facts for _, facts in blobs])
    body = {'schemaVersion': 2, 'mediaType': types['manifest'], 'config': layout.put(types['config'], value),
            'layers': [layout.put_layer(kept, facts, types[facts['form']]) for kept, facts in blobs]}
    return {**layout.put_manifest(types['manifest'], body), 'platform': {'architecture': arch, 'os': 'linux'}}


def attestation(layout, about, reference):
    """A manifest as BuildKit adds it to an index: the statement is a layer, the platform is unknown."""
    types = TYPES['oci']
    statement = {'_type': 'https://in-toto.io/Statement/v0.1', 'predicateType': 'https://slsa.dev/provenance/v0.2',
                 'subject': [{'name': f'pkg:docker/{reference.replace(":", "@")}', 'digest': {'sha256': about['digest'][7:]}}],
                 'predicate': {'builder': {'id': ''}, 'buildType': 'https://mobyproject.org/buildkit@v1', 'materials': [],
                               'invocation': {'configSource': {}, 'parameters': {}, 'environment': {'platform': 'linux/amd64'}}}}
    layer = layout.put('application/vnd.in-toto+json', statement)
    layer['annotations'] = {'in-toto.io/predicate-type': statement['predicateType']}
    conf = {'architecture': 'unknown', 'os': 'unknown', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': [layer['digest']]}}
    body = {'schemaVersion': 2, 'mediaType': types['manifest'], 'config': layout.put(types['config'], conf), 'layers': [layer]}
    return {**layout.put_manifest(types['manifest'], body), 'platform': {'architecture': 'unknown', 'os': 'unknown'},
            'annotations': {'vnd.docker.reference.digest': about['digest'], 'vnd.docker.reference.type': 'attestation-manifest'}}


def docker_save(path, layers, images):
    """Writes `images`, a list of (repository:tag, platform), as `docker save` before Docker 25."""
    files, repositories, listed = {}, {}, []
    for reference, platform in images:
        arch, specs = platform.split('=')
        specs = specs.split(',')
        blobs = [layers.get(spec) for spec in specs]
        conf = json.dumps(config(arch, reference.split(':')[0], [s.split('/')[0] for s in specs], [f for _, f in blobs]),
                          separators=(',', ':')).encode()
        parent, paths = '', []
        for kept, facts in blobs:
            assert facts['form'] == 'tar', 'docker save holds plain layers'
            v1 = hashlib.sha256(f'{parent} {facts["diff"]}'.encode()).hexdigest()
            files[v1 + '/VERSION'] = b'1.0'
            files[v1 + '/json'] = json.dumps({'id': v1, **({'parent': parent} if parent else {}), 'created': CREATED, 'os': 'linux'},
                                             separators=(',', ':')).encode()
            with open(kept, 'rb') as f:
                files[v1 + '/layer.tar'] = f.read()
            paths.append(v1 + '/layer.tar')
            parent = v1
        name = sha256(conf)[7:] + '.json'
        files[name] = conf
        listed.append({'Config': name, 'RepoTags': [reference], 'Layers': paths})
        repository, tag = reference.split(':')
        repositories.setdefault(repository, {})[tag] = parent
    files['manifest.json'] = json.dumps(listed, separators=(',', ':')).encode()
    files['repositories'] = json.dumps(repositories, separators=(',', ':')).encode()
    folders = {os.path.dirname(name) for name in files} - {''}
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(folders | set(files)):
            info = tarfile.TarInfo(name)
            info.mtime = mtime(1704067200)
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size = len(files[name])
                tar.addfile(info, io.BytesIO(files[name]))


def main():
    spec, folder, out = sys.argv[1:]
    layers, layouts, saves = Layers(folder), {}, {}
    with open(spec) as f:
        lines = [line.rstrip('\n').split('\t') for line in f]
    for name, reference, kind, _, *platforms in lines:
        if kind == 'docker-save':
            saves.setdefault(name, []).append((reference, platforms[0]))
            continue
        if name not in layouts:
            layouts[name] = (Dir if kind == 'docker' else Layout)(f'{out}/{name}')
        layout = layouts[name]
        types = TYPES['docker' if kind == 'docker' else 'oci']
        found = [manifest(layout, layers, types, reference, p) for p in platforms]
        if kind == 'attested':
            found += [attestation(layout, about, reference) for about in found]
        if len(found) == 1:
            top = {k: v for k, v in found[0].items() if k != 'platform'}
        else:
            top = layout.put_manifest(types['index'], {'schemaVersion': 2, 'mediaType': types['index'], 'manifests': found})
        layout.add_tag(top, reference.split(':')[1])
    for layout in layouts.values():
        layout.close()
    for name, images in saves.items():
        docker_save(f'{out}/{name}', layers, images)


main()
