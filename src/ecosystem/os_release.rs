use super::{Candidate, Ecosystem, Evidence, Found, Want};

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "os-release",
    summary: "os_release",
    version: 1,
    of_distro: false,
    wants: |_: &Candidate<'_>| -> Option<Want> { None },
    parse: |_: &Evidence<'_>, _: &mut Found| {},
};
