//! Proves a static build: what a binary made by `static-build.sh` must be able to do and the linker alone
//! does not show. Unwinding (a caught panic, a thread that panics), threads, and the name look-up of musl.
//! crowsnest itself has no switch that makes it panic, hence this program, built in the same run.
//!
//! Prints one line for each thing that works; ends with an error at the first that does not.

#![allow(clippy::print_stdout)]

use std::net::ToSocketAddrs;
use std::panic::catch_unwind;
use std::process::ExitCode;

/// Shows that unwinding runs destructors.
struct Dropped<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let dropped = std::sync::atomic::AtomicBool::new(false);
    let checks: [(&str, &dyn Fn() -> bool); 4] = [
        ("a panic is caught", &|| {
            catch_unwind(|| panic!("on purpose")).is_err()
        }),
        ("unwinding drops what is on the stack", &|| {
            let caught = catch_unwind(|| {
                let _guard = Dropped(&dropped);
                panic!("on purpose")
            });
            caught.is_err() && dropped.load(std::sync::atomic::Ordering::SeqCst)
        }),
        ("a panic in a thread ends that thread alone", &|| {
            std::thread::spawn(|| panic!("on purpose")).join().is_err()
        }),
        ("localhost is looked up", &|| {
            ("localhost", 443)
                .to_socket_addrs()
                .is_ok_and(|found| found.count() > 0)
        }),
    ];
    for (what, check) in checks {
        if !check() {
            println!("failed: {what}");
            return ExitCode::FAILURE;
        }
        println!("{what}");
    }
    ExitCode::SUCCESS
}
