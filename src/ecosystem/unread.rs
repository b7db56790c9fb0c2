//! Files that tell of packages of ecosystems that we do not read yet. They are counted as gaps, so that an
//! image of rpm packages or Java archives is never taken for an empty one.

/// What such files are called in a gap; `None` for any other file.
pub(crate) fn kind(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name {
        "rpmdb.sqlite" | "Packages" | "Packages.db"
            if path.contains("lib/rpm/") || path.contains("sysimage/rpm/") =>
        {
            Some("rpm packages")
        }
        "desc" if path.starts_with("var/lib/pacman/local/") => Some("pacman packages"),
        "installed.json" if path.ends_with("vendor/composer/installed.json") => {
            Some("Composer packages")
        }
        _ if name.ends_with(".jar") || name.ends_with(".war") || name.ends_with(".ear") => {
            Some("Java archives")
        }
        _ if name.ends_with(".deps.json") => Some(".NET packages"),
        _ if name.ends_with(".gemspec") && path.contains("/specifications/") => Some("Ruby gems"),
        _ if name.ends_with(".json") && path.contains("conda-meta/") => Some("conda packages"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_unread_ecosystems() {
        for (path, want) in [
            ("var/lib/rpm/Packages", Some("rpm packages")),
            ("usr/lib/sysimage/rpm/rpmdb.sqlite", Some("rpm packages")),
            ("srv/Packages", None),
            ("opt/app/lib/a.jar", Some("Java archives")),
            ("opt/app/a.war", Some("Java archives")),
            (
                "usr/lib/ruby/gems/3.1.0/specifications/rack-2.2.4.gemspec",
                Some("Ruby gems"),
            ),
            ("src/rack.gemspec", None),
            (
                "app/vendor/composer/installed.json",
                Some("Composer packages"),
            ),
            ("app/app.deps.json", Some(".NET packages")),
            ("etc/os-release", None),
        ] {
            assert_eq!(kind(path), want, "{path}");
        }
    }
}
