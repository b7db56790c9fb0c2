use super::{Candidate, Ecosystem, Evidence, Found, Want};

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "apk",
    summary: "apk",
    version: 1,
    of_distro: false,
    wants: |_: &Candidate<'_>| -> Option<Want> { None },
    parse: |_: &Evidence<'_>, _: &mut Found| {},
};
