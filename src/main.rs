mod ecosystem;
mod error;
mod http;
mod image;
mod layer;
mod limit;
mod log;
mod printable;
mod sbom;
mod secret;
mod stop;
mod time;

fn main() {}
