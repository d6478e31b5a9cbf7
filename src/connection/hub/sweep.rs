//! The look at every connection of the thread, a few times each second: deadlines, heartbeats, and connections that
//! have come to a standstill. Deadlines are kept here and not by the connections' own timers, which run only while
//! their sockets take bytes.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::connection::link::{Link, Stage};
use crate::connection::outbox::ping_frame;
use crate::connection::pulse::{Finding, Look};
use crate::protocol::CloseCode;

use super::Hub;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a connection that was cut off has to take its close frame in, and any other to answer it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Starts looking, for as long as the hub lives.
pub(super) fn start(hub: &Rc<Hub>) {
    let hub = Rc::downgrade(hub);
    actix_web::rt::spawn(async move {
        let mut waiting_bytes = 0;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(hub) = Weak::upgrade(&hub) else { return };
            let now = Instant::now();
            let links = hub.links();
            let bytes = links.iter().map(|link| link.outbox().bytes() as i64).sum::<i64>();
            hub.node.metrics.outbox_bytes.add(bytes - waiting_bytes);
            waiting_bytes = bytes;
            for link in links {
                look(&hub, &link, now);
            }
        }
    });
}

fn look(hub: &Hub, link: &Rc<Link>, now: Instant) {
    let settings = &hub.node.settings;
    let stall = Duration::from_secs(settings.stall_s);
    if let Some(since) = link.ending_since() {
        let unanswered = link.goodbye().is_some_and(|said| now.duration_since(said) >= LAST_WORD);
        if unanswered && !link.is_cut_off() {
            link.let_go();
            return;
        }
        let patience = if link.is_cut_off() { LAST_WORD } else { stall };
        if now.duration_since(since) >= patience {
            link.socket.end();
            link.abandon();
        }
        return;
    }
    let early = matches!(link.stage.get(), Stage::Unknown | Stage::Authenticating);
    if early && now.duration_since(link.opened) >= Duration::from_secs(settings.authenticate_within_s) {
        link.close(CloseCode::AuthenticateTimeout);
        return;
    }
    if link.identity.get().is_some_and(|identity| now >= identity.expires) {
        link.close(CloseCode::Unauthenticated);
        return;
    }
    let waiting = link.outbox().waiting_since();
    let heard = link.heard.take() || link.is_paused();
    let mut pulse = link.pulse.get();
    let finding =
        pulse.look(link.opened, Look { now, heard, waiting }, Duration::from_secs(settings.heartbeat_s), stall);
    link.pulse.set(pulse);
    match finding {
        Finding::Fine => {}
        Finding::Ping => link.send_control(ping_frame()),
        Finding::Gone => hub.cut_off(link, CloseCode::NoPong),
        Finding::Stalled => hub.cut_off(link, CloseCode::TooSlow),
    }
}
