//! `crowsnest watch`: the command line of `docker scout watch`, and what we add to it
//! (<https://docs.docker.com/reference/cli/docker/scout/watch/>).

mod run;

use crate::cli::flags::{CA_CERT, Command, DATA_DIR, DEBUG, Flag, Given, INSECURE_HTTP};
use crate::error::{Error, Result};

pub(crate) const COMMAND: Command = Command {
    name: "watch",
    summary: "Watch registries and record what is inside every image",
    usage: "watch [OPTIONS] (--registry REGISTRY | --repository REF)...",
    about: &[
        "Lists the repositories and tags of registries, again and again, and indexes the images that \
         are new: each layer once, wherever it is used. With port= or --listen it also receives their \
         webhooks, so that a pushed image is seen at once; crowsnest webhook print tells how to set them \
         up. Listing goes on beside them, since every sender can lose events.",
        "Without --all-images the first pass ever records what exists and indexes nothing of it. From \
         then on the store remembers, so that a restart misses nothing. With --all-images alone, one \
         pass indexes everything and the command ends; together with --refresh-registry or an explicit \
         --interval, watching goes on after it.",
        "REGISTRY is a host, such as registry.example.com:5000, or a list of key=value fields as in \
         type=artifactory,registry=example.jfrog.io. A field whose value has a comma is quoted \
         together with its key: \"repository=a,b\". Credentials are those of docker login, unless \
         variables name others.",
    ],
    flags: &[
        Flag {
            long: "all-images",
            env: &["CROWSNEST_ALL_IMAGES"],
            summary: "Also index images that exist already, not only those pushed from now on",
            ..Flag::NEW
        },
        CA_CERT,
        Flag {
            long: "connect-timeout",
            value: Some("SECONDS"),
            default: Some("10"),
            env: &["CROWSNEST_CONNECT_TIMEOUT"],
            summary: "Seconds in which a connection must stand, with TLS and through a proxy; to look \
                      up the name, there are as many before",
            ..Flag::NEW
        },
        DATA_DIR,
        DEBUG,
        Flag {
            long: "dry-run",
            env: &["CROWSNEST_DRY_RUN"],
            summary: "List what would be read and how many bytes; read no layer, record nothing",
            ..Flag::NEW
        },
        INSECURE_HTTP,
        Flag {
            long: "interval",
            value: Some("SECONDS"),
            default: Some("60"),
            env: &["CROWSNEST_INTERVAL"],
            summary: "Seconds between two listings",
            ..Flag::NEW
        },
        Flag {
            long: "keep",
            value: Some("DAYS"),
            env: &["CROWSNEST_KEEP"],
            summary: "Days after which tags that are gone are forgotten, with all that nothing else needs; \
                      by default never",
            ..Flag::NEW
        },
        Flag {
            long: "listen",
            value: Some("ADDR:PORT"),
            is_repeated: true,
            env: &["CROWSNEST_LISTEN"],
            summary: "Address to receive webhooks of all registries on; beside port= of each",
            ..Flag::NEW
        },
        Flag {
            long: "log-format",
            value: Some("FORMAT"),
            default: Some("text"),
            env: &["CROWSNEST_LOG_FORMAT"],
            summary: "Form of the log lines on stderr",
            choices: || vec!["text", "json"],
            ..Flag::NEW
        },
        Flag {
            long: "max-layer-size",
            value: Some("SIZE"),
            default: Some("32GiB"),
            env: &["CROWSNEST_MAX_LAYER_SIZE"],
            summary: "Unpacked bytes up to which a layer is read; suffixes K, M, G, T are powers of 1024",
            ..Flag::NEW
        },
        Flag {
            long: "max-per-host",
            value: Some("N"),
            default: Some("16"),
            env: &["CROWSNEST_MAX_PER_HOST"],
            summary: "Requests at a time to one host, of all workers together, reading the answers \
                      included; the answer to an AQL query is read besides",
            ..Flag::NEW
        },
        Flag {
            long: "org",
            value: Some("ORG"),
            summary: "Taken for the sake of docker scout watch and ignored: there is no Docker \
                      organization here",
            ..Flag::NEW
        },
        Flag {
            long: "platform",
            value: Some("PLATFORM"),
            is_repeated: true,
            env: &["CROWSNEST_PLATFORM"],
            summary: "Index only this os/arch[/variant] of multi-platform images; by default all",
            ..Flag::NEW
        },
        Flag {
            long: "quiet",
            env: &["CROWSNEST_QUIET"],
            summary: "Log warnings and errors only",
            ..Flag::NEW
        },
        Flag {
            long: "refresh-registry",
            env: &["CROWSNEST_REFRESH_REGISTRY"],
            summary: "Go on after --all-images, and list the repositories again before every pass (as \
                      is always done); only with --registry",
            ..Flag::NEW
        },
        Flag {
            long: "registry",
            value: Some("REGISTRY"),
            is_repeated: true,
            is_whole: true,
            env: &["CROWSNEST_REGISTRY"],
            summary: "Registry to watch: a host, or key=value fields",
            ..Flag::NEW
        },
        Flag {
            long: "repository",
            value: Some("REF"),
            is_repeated: true,
            env: &["CROWSNEST_REPOSITORY"],
            summary: "Repository to watch, such as registry.example.com/my-service",
            ..Flag::NEW
        },
        Flag {
            long: "response-timeout",
            value: Some("SECONDS"),
            default: Some("60"),
            env: &["CROWSNEST_RESPONSE_TIMEOUT"],
            summary: "Seconds from the end of a request to the end of its answer's headers",
            ..Flag::NEW
        },
        Flag {
            long: "sbom",
            default: Some("true"),
            env: &["CROWSNEST_SBOM"],
            summary: "Read the layers and record the packages; --sbom=false records the images only",
            ..Flag::NEW
        },
        Flag {
            long: "stall-timeout",
            value: Some("SECONDS"),
            default: Some("30"),
            env: &["CROWSNEST_STALL_TIMEOUT"],
            summary: "Seconds of waiting for a body after which it is broken off, when none of them \
                      brought a byte or they brought less than 1 KiB each on average; the rest of a \
                      layer is then asked for anew. There is no limit on the whole",
            ..Flag::NEW
        },
        Flag {
            long: "tag",
            value: Some("REGEX"),
            is_repeated: true,
            env: &["CROWSNEST_TAG"],
            summary: "Regular expression that a tag must match, not anchored; several are alternatives",
            ..Flag::NEW
        },
        Flag {
            long: "token-realm",
            value: Some("HOST"),
            is_repeated: true,
            env: &["CROWSNEST_TOKEN_REALM"],
            summary: "Host other than the registry that may receive its credentials to issue tokens",
            ..Flag::NEW
        },
        Flag {
            long: "verbose-debug",
            summary: "Log what is done in more detail",
            is_hidden: true,
            ..Flag::NEW
        },
        Flag {
            long: "workers",
            value: Some("N"),
            default: Some("3"),
            env: &["CROWSNEST_WORKERS"],
            summary: "Images and layers that are worked on at the same time",
            ..Flag::NEW
        },
    ],
    positional: None,
    examples: &[
        (
            "Index everything that a registry holds, once",
            "crowsnest watch --registry registry.example.com --all-images",
        ),
        (
            "Watch one Artifactory repository, and receive its webhooks on port 9000",
            "crowsnest watch --refresh-registry --registry 'type=artifactory,\
             registry=example.jfrog.io,api=https://example.jfrog.io/artifactory,\
             repository=docker-local,include=*/frontend*,port=9000'",
        ),
        (
            "Watch the release tags of two repositories",
            "crowsnest watch --tag '^v[0-9]' --repository r.example.com/web,r.example.com/api",
        ),
    ],
    exit_codes: &[
        (
            0,
            "everything was indexed, or watching was ended by a signal",
        ),
        (
            1,
            "it could not run: a wrong flag, no access, a broken store",
        ),
        (3, "the pass of --all-images ended, and some images failed"),
    ],
    is_hidden: false,
    check,
    run: run::run,
};

fn check(given: &Given) -> Result<()> {
    let has_registry = given.is_given("registry");
    if !has_registry && !given.is_given("repository") {
        return Err(Error::tell(
            "nothing to watch: expected --registry or --repository",
        ));
    }
    if given.is_set("refresh-registry") && !has_registry {
        return Err(Error::tell(
            "--refresh-registry: expected --registry too; the repositories of --repository are fixed",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::flags::parse;

    fn given(line: &[&str]) -> Result<Given> {
        parse(&COMMAND, line.iter().map(OsString::from), &|_| None)
    }

    #[test]
    fn every_flag_of_docker_scout_watch_is_taken() {
        let given = given(&[
            "--all-images",
            "--dry-run",
            "--interval",
            "30",
            "--org",
            "acme",
            "--refresh-registry",
            "--registry",
            "type=nexus,registry=r,\"repository=a,b\"",
            "--sbom=false",
            "--tag",
            "^v,latest",
            "--workers=5",
            "--debug",
            "--verbose-debug",
        ])
        .unwrap();
        assert!(given.is_set("all-images") && given.is_set("verbose-debug"));
        assert!(!given.is_set("sbom"));
        assert_eq!(given.many("tag"), ["^v", "latest"]);
        assert_eq!(
            given.many("registry"),
            ["type=nexus,registry=r,\"repository=a,b\""]
        );
        assert_eq!(given.number("interval", 1..=86_400).unwrap(), 30);
        assert_eq!(given.size("max-layer-size").unwrap(), 32 << 30);
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        for (line, message) in [
            (
                &[][..],
                "nothing to watch: expected --registry or --repository",
            ),
            (
                &["--repository", "r.example/a", "--refresh-registry"],
                "--refresh-registry: expected --registry too; the repositories of --repository are \
                 fixed",
            ),
        ] {
            assert_eq!(given(line).err().unwrap().to_string(), message);
        }
        assert!(given(&["--repository", "r.example/a", "--registry", "r.example"]).is_ok());
    }
}
