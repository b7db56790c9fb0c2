//! `crowsnest man`: the manual page, from the rows of all commands and the texts here
//! (man-pages(7), groff_man(7)).
//!
//! The page in the repository, `man/crowsnest.1`, is the output of this command; a test compares them.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::flags::{Command, any_combination};
use crate::cli::help::{self, Keys};
use crate::cli::{print, registries, shown};
use crate::{ecosystem, format};

pub(crate) const COMMAND: Command = Command {
    name: "man",
    summary: "Print the manual page",
    usage: "man",
    about: &["Prints the manual page in roff."],
    flags: &[],
    positional: None,
    examples: &[("Read it", "crowsnest man | man -l -")],
    exit_codes: &[(0, "printed")],
    is_hidden: true,
    check: any_combination,
    run: |_| {
        print(&page(&shown().collect::<Vec<_>>(), &registries()))?;
        Ok(ExitCode::SUCCESS)
    },
};

/// Paragraphs.
const DESCRIPTION: &[&str] = &[
    "crowsnest watches container registries and records what is inside every image: the packages of the \
     distribution and of the languages, and what could not be read. It is one program with one \
     directory, sends nothing to anybody, and works without access to the internet.",
    "crowsnest watch takes the options of docker scout watch. It can be called as docker crowsnest when \
     it lies as docker-crowsnest in ~/.docker/cli-plugins.",
];

const REGISTRY_KEYS: &str = "The value of --registry is a host, or key=value fields separated by \
     commas; the key type names the product. A field whose value has a comma stands in double quotes, \
     key included, and a double quote inside it is doubled. A list may also be given by repeating its \
     key. Globs: * stands for any characters, / included, ? for one; an excluded repository stays \
     excluded whatever includes it.";

/// Name and meaning.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "DOCKER_AUTH_CONFIG",
        "Credentials in JSON, {\"auths\":{\"host\":{\"auth\":\"base64 of user:password\"}}}; they come \
         before those of the files.",
    ),
    (
        "DOCKER_CONFIG",
        "Directory of Docker's config.json, by default ~/.docker.",
    ),
    (
        "REGISTRY_AUTH_FILE",
        "File with credentials in the form of podman, read when Docker has none.",
    ),
    (
        "XDG_DATA_HOME",
        "Where the store lies unless --data-dir names a place, by default ~/.local/share.",
    ),
];

/// Path and meaning.
const FILES: &[(&str, &str)] = &[
    ("/var/lib/crowsnest", "The store, when run as root."),
    (
        "~/.local/share/crowsnest",
        "The store, when run by somebody else.",
    ),
    (
        "~/.docker/config.json",
        "Credentials of docker login, and the names of credential helpers.",
    ),
    (
        "$XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json",
        "Credentials of podman login, read when there is no file of Docker.",
    ),
];

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "All went well."),
    ("1", "It could not run, or the command line is wrong."),
    (
        "3",
        "It ended, and some images failed; each is named on stderr.",
    ),
];

const JSON: &[&str] = &[
    "With --format json a command prints one JSON document in UTF-8 with the key version, which is 1. Lists \
     are sorted, so that the same store gives the same bytes. Keys may be added in later versions; those \
     that are there keep their name and meaning. What is not known is null. Times are UTC in RFC 3339, \
     sizes are bytes, digests have their algorithm in front.",
    "A list has an object a line, so that it can be read as it comes and compared line by line.",
];

/// Title, what stands before, and the shape, in lines of at most 76 characters.
const SHAPES: &[(&str, &str, &[&str])] = &[
    (
        "crowsnest images",
        "A row for each platform of each tag, sorted by repository, tag and platform. digest is what the tag \
         points to, image_digest the image itself. gone_at is null unless --all is given. error is null \
         unless the last try failed. The columns of --format csv are the same.",
        &[
            "{\"version\": 1,",
            " \"images\": [{\"repository\", \"tag\", \"digest\", \"image_digest\",",
            "   \"platform\", \"packages\", \"size\", \"first_seen\", \"last_seen\",",
            "   \"gone_at\", \"state\", \"error\"}]}",
        ],
    ),
    (
        "crowsnest sbom",
        "Layers are sorted from the bottom, and position counts from 0; refused is why a layer was not \
         read. Packages are sorted by purl, each once; layer is the position of the layer. evidence counts \
         the files that tell of packages, masked those that a higher layer removed or replaced. \
         problems_unlisted counts problems that were too many to be recorded.",
        &[
            "{\"version\": 1,",
            " \"image\": {\"names\": [], \"digest\", \"media_type\", \"config_digest\",",
            "   \"platform\", \"created\", \"size\", \"distro\": {\"id\", \"id_like\",",
            "   \"version_id\", \"codename\", \"pretty_name\", \"cpe\"}},",
            " \"layers\": [{\"position\", \"digest\", \"diff_id\", \"size\", \"refused\"}],",
            " \"packages\": [{\"purl\", \"type\", \"namespace\", \"name\", \"version\",",
            "   \"architecture\", \"source\": {\"name\", \"version\"}, \"licenses\": [],",
            "   \"ecosystem\", \"locations\": [{\"layer\", \"path\"}]}],",
            " \"coverage\": {\"is_complete\", \"layers_read\", \"layers_total\",",
            "   \"evidence\", \"masked\", \"problems\": [{\"subject\", \"path\",",
            "   \"message\"}], \"problems_unlisted\"}}",
        ],
    ),
    (
        "crowsnest status",
        "A source with an error could not be listed since error_since. Of those waiting, pushed have just \
         been pushed and go first, and retrying failed before; next_try is when the first of these is due. \
         events are accepted webhooks, of which the oldest was received at waiting_since. A failure without \
         next_try is tried again as soon as a worker is free when is_due is true, not until the tag changes \
         when is_final is true, and otherwise by the next run; crowsnest retry has all of them tried again. \
         At most 1,000 failures are listed; \
         failures_unlisted counts the others.",
        &[
            "{\"version\": 1,",
            " \"store\": {\"path\", \"bytes\"},",
            " \"counts\": {\"repositories\", \"tags\", \"images\",",
            "   \"incomplete_images\", \"layers\", \"layer_bytes\", \"packages\"},",
            " \"queue\": {\"waiting\", \"retrying\", \"pushed\", \"next_try\", \"running\",",
            "   \"failed\"},",
            " \"events\": {\"waiting\", \"waiting_since\"},",
            " \"sources\": [{\"name\", \"repositories\", \"tags\", \"listed_at\",",
            "   \"error\", \"error_since\"}],",
            " \"failures\": [{\"image\", \"digest\", \"error\", \"hint\", \"attempts\",",
            "   \"next_try\", \"is_due\", \"is_final\"}],",
            " \"failures_unlisted\"}",
        ],
    ),
];

/// The page.
fn page(commands: &[&'static Command], registries: &[Keys]) -> String {
    let mut page = Page(String::new());
    page.request(&format!(
        ".TH CROWSNEST 1 \"\" \"crowsnest {}\" \"User Commands\"",
        env!("CARGO_PKG_VERSION")
    ));
    // No hyphens and no stretched lines: names of flags and variables are there to be copied.
    page.request(".nh\n.ad l");
    page.section("NAME");
    page.line("crowsnest - watch container registries and record what is inside every image");
    page.section("SYNOPSIS");
    for command in commands {
        page.request(".br");
        page.line(&format!("crowsnest {}", command.usage));
    }
    page.section("DESCRIPTION");
    page.paragraphs(DESCRIPTION);
    page.section("COMMANDS");
    for command in commands {
        page.command(command);
    }
    if !registries.is_empty() {
        page.section("REGISTRY KEYS");
        page.paragraphs(&[REGISTRY_KEYS]);
    }
    for registry in registries {
        page.subsection(&format!("type={} ({})", registry.name, registry.summary));
        for row in registry.rows {
            page.request(".TP");
            page.request(&format!("{}={}", bold(row.key), italic(row.value)));
            page.line(&sentence(row.summary, &help::key_notes(row)));
        }
    }
    page.section("ENVIRONMENT");
    page.paragraphs(&[
        "The variables of the flags are named with them. A flag on the command line comes before its \
         variable, and an empty variable counts as absent.",
    ]);
    page.terms(ENVIRONMENT);
    page.section("FILES");
    page.terms(FILES);
    page.section("EXIT STATUS");
    page.terms(EXIT_STATUS);
    page.section("WHAT IS READ");
    for ecosystem in ecosystem::ALL {
        page.request(".TP");
        page.request(&bold(ecosystem.name));
        page.line(&sentence(ecosystem.summary, &[]));
    }
    page.section("FORMATS");
    for format in format::all() {
        page.request(".TP");
        page.request(&bold(format.name));
        page.line(&sentence(format.summary, &[]));
    }
    page.section("JSON OUTPUT");
    page.paragraphs(JSON);
    for (title, text, shape) in SHAPES {
        page.subsection(title);
        page.line(text);
        page.block(shape.iter().copied());
    }
    page.section("SEE ALSO");
    page.line("docker-login(1), podman-login(1), containers-auth.json(5)");
    page.0
}

/// A page under construction. Every line of text is escaped on its way in.
struct Page(String);

impl Page {
    /// A line of roff as it stands.
    fn request(&mut self, roff: &str) {
        let _ = writeln!(self.0, "{roff}");
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", escaped(text));
    }

    fn section(&mut self, title: &str) {
        self.request(&format!(".SH {title}"));
    }

    fn subsection(&mut self, title: &str) {
        self.request(&format!(".SS {}", escaped(title)));
    }

    fn paragraphs(&mut self, paragraphs: &[&str]) {
        for paragraph in paragraphs {
            self.request(".PP");
            self.line(paragraph);
        }
    }

    fn terms(&mut self, terms: &[(&str, &str)]) {
        for (term, meaning) in terms {
            self.request(".TP");
            self.request(&bold(term));
            self.line(meaning);
        }
    }

    /// Lines as they stand, indented.
    fn block<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        self.request(".RS 4\n.nf");
        for line in lines {
            self.line(line);
        }
        self.request(".fi\n.RE");
    }

    fn command(&mut self, command: &Command) {
        self.subsection(&format!("crowsnest {}", command.usage));
        self.line(&sentence(command.summary, &[]));
        self.paragraphs(command.about);
        if let Some(positional) = &command.positional {
            self.request(".TP");
            self.request(&italic(positional.name));
            self.line(&sentence(&help::capitalized(positional.summary), &[]));
        }
        for flag in help::shown_flags(command) {
            self.request(".TP");
            let short = flag
                .short
                .map(|letter| format!("{}, ", bold(&format!("-{letter}"))));
            let value = flag.value.map(|value| format!(" {}", italic(value)));
            self.request(&format!(
                "{}{}{}",
                short.unwrap_or_default(),
                bold(&format!("--{}", flag.long)),
                value.unwrap_or_default()
            ));
            self.line(&sentence(flag.summary, &help::notes(flag)));
        }
        for (what, line) in command.examples {
            self.paragraphs(&[&format!("{what}:")]);
            self.block(line.lines());
        }
        self.request(".PP\nExit status:");
        for (code, meaning) in command.exit_codes {
            self.request(".TP\n.PD 0");
            self.request(&bold(&code.to_string()));
            self.line(&sentence(&help::capitalized(meaning), &[]));
        }
        self.request(".PD");
    }
}

/// A row's summary with the period that rows leave out, and its notes as a sentence behind it.
fn sentence(summary: &str, notes: &[String]) -> String {
    match notes {
        [] => format!("{summary}."),
        notes => format!("{summary}. ({})", notes.join("; ")),
    }
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// Text as text: no backslash starts an escape, no line a request, and a minus stays one that can be
/// copied to a shell.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    if text.starts_with(['.', '\'']) {
        safe.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\e"),
            '-' => safe.push_str("\\-"),
            '\'' => safe.push_str("\\(aq"),
            '^' => safe.push_str("\\(ha"),
            '~' => safe.push_str("\\(ti"),
            '`' => safe.push_str("\\(ga"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionRow;

    #[test]
    fn the_page_in_the_repository_is_this_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/man/crowsnest.1");
        let page = page(&shown().collect::<Vec<_>>(), &registries());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/man")).unwrap();
            std::fs::write(file, &page).unwrap();
        }
        let stored = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            stored == page,
            "man/crowsnest.1 is not what `crowsnest man` prints; run: UPDATE=1 cargo test"
        );
    }

    #[test]
    fn registry_keys_are_shown() {
        const ROWS: &[OptionRow] = &[OptionRow {
            key: "include",
            aliases: &["includes"],
            value: "GLOB",
            summary: "Repositories to take",
            is_required: false,
            is_list: true,
        }];
        let keys = [Keys {
            name: "oci",
            summary: "any registry",
            rows: ROWS,
        }];
        let expected = ".SS type=oci (any registry)\n.TP\n\\fBinclude\\fR=\\fIGLOB\\fR\n\
                        Repositories to take. (list; also: includes)\n";
        assert!(page(&[], &keys).contains(expected));
        assert!(!page(&[], &[]).contains("REGISTRY KEYS"));
    }

    #[test]
    fn text_cannot_become_roff() {
        for (text, roff) in [
            (".TH x", "\\&.TH x"),
            ("'x'", "\\&\\(aqx\\(aq"),
            ("a\\fBb", "a\\efBb"),
            ("--x ^~", "\\-\\-x \\(ha\\(ti"),
        ] {
            assert_eq!(escaped(text), roff);
        }
    }
}
