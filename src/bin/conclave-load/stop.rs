//! Being told to stop: Ctrl-C or SIGTERM once ends the run early and reports what was measured so far; twice ends the
//! program.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit status of a program that was interrupted, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Listens for signals from now on, on a thread of its own.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ASKED.swap(true, Ordering::Relaxed) {
                    exit(INTERRUPTED.into());
                }
                eprintln!("\nstopping; once more to give up what was measured");
            }
        });
    });
    Ok(())
}

/// Whether this program was told to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
