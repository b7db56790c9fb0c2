//! Ant path patterns, as the criteria of a subscription have them.
//!
//! Source: `reference/registries.md` A4 (no leading slash); Ant manual, "Directory-based tasks".
//! `**` is any number of folders, `*` and `?` are any characters and one character inside a name, a
//! pattern that ends in `/` means everything below. *Invariant:* case counts.

/// True when the pattern covers the whole path.
pub(crate) fn ant_matches(pattern: &str, path: &str) -> bool {
    let mut names: Vec<&str> = pattern.split('/').collect();
    if let Some(last) = names.last_mut().filter(|last| last.is_empty()) {
        *last = "**";
    }
    let path: Vec<&str> = path.split('/').collect();
    folders_match(&names, &path)
}

fn folders_match(pattern: &[&str], path: &[&str]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|skip| folders_match(rest, &path[skip..])),
        [first, rest @ ..] => match path {
            [name, below @ ..] => {
                let is_match = wildmatch::WildMatch::new(first).matches(name);
                is_match && folders_match(rest, below)
            }
            [] => false,
        },
    }
}
