use super::{Candidate, Ecosystem, Evidence, Found, Want};

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "dpkg",
    summary: "dpkg",
    version: 1,
    of_distro: false,
    wants: |_: &Candidate<'_>| -> Option<Want> { None },
    parse: |_: &Evidence<'_>, _: &mut Found| {},
};
