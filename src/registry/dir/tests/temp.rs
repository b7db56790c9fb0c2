//! A folder of its own for a test.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A folder that is removed when dropped.
pub(super) struct Temp(pub(super) PathBuf);

impl Temp {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crowsnest-dir-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Temp(path.canonicalize().unwrap())
    }

    /// Writes a file, making the folders in between.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Copies a file or folder of `tests/images`.
    pub(super) fn copy(&self, from: &str, to: &str) {
        let (from, to) = (Path::new(IMAGES).join(from), self.0.join(to));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            self.write(
                to.strip_prefix(&self.0).unwrap().to_str().unwrap(),
                &fs::read(from).unwrap(),
            );
        }
    }

    pub(super) fn source(&self) -> Folder {
        source(self.0.to_str().unwrap())
    }

    /// The path of the folder taken out of texts.
    pub(super) fn shorten(&self, texts: &[String]) -> Vec<String> {
        let folder = format!("{}/", self.0.display());
        texts
            .iter()
            .map(|text| {
                text.replace(&folder, "")
                    .replace(&*self.0.to_string_lossy(), "FOLDER")
            })
            .collect()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
