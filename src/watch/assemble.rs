//! An image put together from its stored layers: what counts, what it says, and the row of the image.

use std::collections::BTreeSet;

use super::shared::{ImagePlan, Shared};
use crate::ecosystem::{self, Found};
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::indexer::squash::{Covers, Squash};
use crate::limit;
use crate::sbom::Distro;
use crate::store::images::{ImageTotals, IndexedImage};
use crate::store::layers::{ContentId, StoredLayer};
use crate::store::packages::{ParsedEvidence, distro_key};

/// Evidence parsed and stored in one go.
const BATCH: usize = 200;
/// Bytes of unpacked evidence: files have less, what was put together out of a program may have more.
const EVIDENCE_BYTES: usize = 4 * limit::EVIDENCE_FILE_BYTES as usize;
/// Where os-release(5) is looked for, the first that counts wins.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// Stores an image whose layers are all accounted for.
/// Errors: `Skip` when a layer is not the one that the configuration names, `Limit` for too much evidence,
/// `Retry` when something of it was pruned meanwhile.
pub(super) fn image(shared: &Shared<'_>, plan: &ImagePlan) -> Result<ImageTotals> {
    let store = shared.plan.store;
    let mut layers = Vec::with_capacity(plan.layers.len());
    let mut squash = Squash::new();
    for (at, descriptor) in plan.layers.iter().enumerate() {
        let mut layer = store.layer(&descriptor.digest)?;
        layers.push((layer.id, descriptor.digest.clone()));
        if let Some(expected) = plan.config.diff_ids.get(at) {
            check_diff_id(&layer, expected)?;
        }
        let covers = Covers {
            whiteouts: std::mem::take(&mut layer.whiteouts),
            opaques: std::mem::take(&mut layer.opaques),
            paths: std::mem::take(&mut layer.paths),
        };
        let evidence = layer.evidence.into_iter();
        squash.add(
            evidence.map(|file| (file.path, (file.ecosystem, file.content))),
            &covers,
        )?;
    }
    let mut live: BTreeSet<(&'static str, ContentId)> = BTreeSet::new();
    let mut masks = Vec::new();
    let mut os_release = [None; 2];
    for (position, layer) in squash.into_layers().into_iter().enumerate() {
        for file in layer {
            if file.is_masked {
                masks.push((position, file.path));
                continue;
            }
            let (ecosystem, content) = file.evidence;
            let Some(row) = ecosystem::named(&ecosystem) else {
                continue;
            };
            live.insert((row.name, content));
            if let Some(at) = OS_RELEASE.iter().position(|path| *path == file.path) {
                os_release[at] = Some(content);
            }
        }
    }
    let mut unpack = Unpack::new().map_err(|err| Error::stop(format_args!("zstd: {err}")))?;
    let distro = match os_release.into_iter().flatten().next() {
        Some(content) => parsed(shared, &mut unpack, "os-release", content)?.distro,
        None => None,
    };
    parse_missing(shared, &mut unpack, &live, distro.as_ref())?;
    store.save_image(&IndexedImage {
        digest: &plan.place.digest,
        media_type: plan.media_type,
        config_digest: &plan.config_digest,
        config: &plan.config,
        layers: &layers,
        size: plan.layers.iter().map(|layer| layer.size).sum(),
        distro: distro.as_ref(),
        masks: &masks,
    })
}

/// Compares what a layer unpacked to with what the configuration says.
fn check_diff_id(layer: &StoredLayer, expected: &Digest) -> Result<()> {
    match &layer.diff_id {
        Some(diff_id) if diff_id != expected && expected.algorithm() == diff_id.algorithm() => {
            Err(Error::skip(format_args!(
                "layer `{}` unpacks to `{diff_id}`, the configuration says `{expected}`",
                layer.digest
            )))
        }
        _ => Ok(()),
    }
}

/// Parses the evidence that nobody parsed before: usually none, or that of one new layer.
fn parse_missing(
    shared: &Shared<'_>,
    unpack: &mut Unpack,
    live: &BTreeSet<(&'static str, ContentId)>,
    distro: Option<&Distro>,
) -> Result<()> {
    let wanted = live
        .iter()
        .filter_map(|&(name, content)| {
            let row = ecosystem::named(name)?;
            Some((
                content,
                row.name,
                row.version,
                distro_key(row.of_distro.then_some(distro)),
            ))
        })
        .collect();
    let missing = shared.plan.store.unparsed(wanted)?;
    for batch in missing.chunks(BATCH) {
        let mut rows = Vec::with_capacity(batch.len());
        for &(content, name) in batch {
            let Some(row) = ecosystem::named(name) else {
                continue;
            };
            let found = parsed(shared, unpack, name, content)?;
            rows.push(ParsedEvidence {
                content,
                ecosystem: row.name,
                version: row.version,
                distro: row.of_distro.then_some(distro),
                packages: found.packages,
                problems: found.problems,
            });
        }
        shared.plan.store.save_evidence(&rows)?;
    }
    Ok(())
}

/// Parses one piece of stored evidence.
fn parsed(
    shared: &Shared<'_>,
    unpack: &mut Unpack,
    name: &str,
    content: ContentId,
) -> Result<Found> {
    let compressed = shared.plan.store.content(content)?;
    let bytes = unpack
        .decompress(&compressed, EVIDENCE_BYTES)
        .map_err(|err| Error::skip(format_args!("stored evidence cannot be unpacked: {err}")))?;
    let mut found = Found::default();
    if let Some(row) = ecosystem::named(name) {
        (row.parse)(&bytes, &mut found);
    }
    Ok(found)
}

/// What unpacks evidence; made once an image, since making it takes longer than a small file.
type Unpack = zstd::bulk::Decompressor<'static>;
