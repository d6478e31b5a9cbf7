//! Which connections a channel goes through: one pair of them, or with a Redis Cluster one for each master.
//!
//! Invariant: a wanted channel is wanted of exactly one listener, that of the server that has its slot as far as is
//! known; one whose slot nobody has waits until somebody has it. A channel that moves has missed something.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::dial::{Address, RedisTrouble};
use super::listener::{Listener, Listening};
use super::names::Place;
use super::post::{Post, Probe, Side, lock};
use super::publisher::{Dropped, Publisher};
use super::slots::{SLOTS, masters, slot};
use crate::cluster::envelope::Kind;

/// How often a cluster is asked who has which slot, if nothing looks wrong.
const LOOK: Duration = Duration::from_secs(5);

/// The least time between two such questions.
const PACE: Duration = Duration::from_millis(100);

/// See the file.
pub(super) struct Routes {
    post: Arc<Post>,
    waiting_bytes: usize,
    map: Mutex<Map>,
    /// A listener or a publisher found something.
    found: Arc<Notify>,
    lanes: AtomicU32,
}

#[derive(Default)]
struct Map {
    links: Vec<Link>,
    /// For each slot its link; empty without a cluster, where all have the only one.
    slots: Vec<Option<usize>>,
    /// Who had which slot when the cluster was asked last.
    masters: Vec<Option<Address>>,
    /// Wanted, and without a server.
    orphans: HashSet<Place>,
}

/// The connections to one server.
struct Link {
    at: Address,
    lane: u32,
    probe: Place,
    publisher: Arc<Publisher>,
    listener: Arc<Listener>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Routes {
    /// Connects to the server of the URL, or to those of its cluster as soon as they are known.
    pub(super) fn new(post: Arc<Post>, waiting_bytes: usize) -> Self {
        let this = Self { post, waiting_bytes, map: Mutex::default(), found: Arc::default(), lanes: AtomicU32::new(0) };
        if !this.post.sharded {
            let link = this.link(this.post.dialer.seed());
            link.listener.want(link.probe, false);
            lock(&this.map).links.push(link);
        }
        this.want(Place::Everyone);
        this
    }

    fn link(&self, at: Address) -> Link {
        let lane = self.lanes.fetch_add(1, Ordering::Relaxed);
        let publisher = Arc::new(Publisher::new(
            at.clone(),
            lane,
            self.waiting_bytes,
            Arc::clone(&self.post),
            Arc::clone(&self.found),
        ));
        let listener = Arc::new(Listener::new(at.clone(), Arc::clone(&self.post), Arc::clone(&self.found)));
        let tasks = [tokio::spawn(Arc::clone(&publisher).run()), tokio::spawn(Arc::clone(&listener).run())];
        let probe = Place::Probe { node: self.post.me, lane, salt: 0 };
        Link { at, lane, probe, publisher, listener, tasks }
    }

    // Using them.

    pub(super) fn send(&self, place: Place, kind: Kind, message: crate::cluster::Message) -> Result<(), Dropped> {
        let map = lock(&self.map);
        match map.home(&self.post, place) {
            Some(link) => link.publisher.send(place, kind, message),
            None => {
                self.post.metrics.bus_dropped.with_label_values(&[Dropped::Away.reason()]).inc();
                Err(Dropped::Away)
            }
        }
    }

    /// A message that is too large for the bus: whoever listens reads the store.
    pub(super) fn too_large(&self, place: Place) {
        self.post.metrics.bus_dropped.with_label_values(&["too_large"]).inc();
        if let Some(link) = lock(&self.map).home(&self.post, place) {
            link.publisher.tell_missed(place);
        }
    }

    /// Sends a probe through each link; none where some channels have no server.
    pub(super) fn send_probes(&self) -> Result<Vec<Probe>, Dropped> {
        let map = lock(&self.map);
        if map.links.is_empty() || map.slots.iter().any(Option::is_none) {
            return Err(Dropped::Away);
        }
        let send = |link: &Link| {
            let (message, probe) = Post::probe(&self.post);
            link.publisher.send(link.probe, Kind::Probe, message).map(|()| probe)
        };
        map.links.iter().map(send).collect()
    }

    pub(super) fn want(&self, place: Place) -> Listening {
        let mut map = lock(&self.map);
        match map.home(&self.post, place) {
            Some(link) => link.listener.want(place, false),
            None => {
                map.orphans.insert(place);
                Listening::Away
            }
        }
    }

    /// Whoever wanted it did not wait long enough; `true` if it is confirmed by now.
    pub(super) fn gave_up_waiting(&self, place: Place) -> bool {
        lock(&self.map).home(&self.post, place).is_some_and(|link| link.listener.gave_up_waiting(place))
    }

    pub(super) fn forget(&self, place: Place) {
        let mut map = lock(&self.map);
        map.orphans.remove(&place);
        if let Some(link) = map.home(&self.post, place) {
            link.listener.forget(place);
        }
    }

    // Keeping them right.

    /// Acts on what listeners and publishers find, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            if self.post.sharded
                && let Err(trouble) = self.look().await
            {
                self.post.say(Side::Asking, &self.post.dialer.seed(), trouble);
            }
            sleep(PACE).await;
            let _ = timeout(LOOK, self.found.notified()).await;
            self.act();
        }
    }

    /// Where a message said that everybody missed something, everybody is told.
    fn act(&self) {
        let map = lock(&self.map);
        if map.links.iter().filter(|link| link.listener.take_all_missed()).count() > 0 {
            map.links.iter().for_each(|link| link.listener.miss_everything());
        }
    }

    /// Asks the cluster who has which slot.
    async fn look(&self) -> Result<(), RedisTrouble> {
        let seed = self.post.dialer.seed();
        let mut servers: Vec<Address> = lock(&self.map).links.iter().map(|link| link.at.clone()).collect();
        servers.retain(|at| *at != seed);
        servers.insert(0, seed);
        let mut trouble = None;
        for at in servers {
            match self.ask(&at).await {
                Ok(masters) => {
                    let mut map = lock(&self.map);
                    if map.masters != masters {
                        self.reroute(&mut map, masters);
                    }
                    self.tell_strays(&map);
                    self.post.well(Side::Asking, &self.post.dialer.seed());
                    return Ok(());
                }
                Err(found) => trouble = trouble.or(Some(found)),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn ask(&self, at: &Address) -> Result<Vec<Option<Address>>, RedisTrouble> {
        let push: Option<tokio::sync::mpsc::UnboundedSender<redis::PushInfo>> = None;
        let mut connection = self.post.dialer.connect(at, push).await?;
        let answer = connection.send_packed_command(redis::cmd("CLUSTER").arg("SLOTS")).await;
        let answer = match answer {
            Ok(redis::Value::ServerError(error)) => return Err(self.post.dialer.refusal(at, &error)),
            Ok(answer) => answer,
            Err(error) => return Err(self.post.dialer.trouble(at, &error)),
        };
        masters(&answer, at).ok_or_else(|| RedisTrouble::NoCluster(at.to_string()))
    }

    /// Takes a new distribution of slots in: links come and go, and channels move.
    fn reroute(&self, map: &mut Map, masters: Vec<Option<Address>>) {
        let mut old: HashMap<Address, Link> = map.links.drain(..).map(|link| (link.at.clone(), link)).collect();
        let mut indexes: HashMap<&Address, usize> = HashMap::new();
        map.slots = vec![None; SLOTS];
        for (slot, at) in masters.iter().enumerate() {
            let Some(at) = at else { continue };
            let index = *indexes.entry(at).or_insert_with(|| {
                map.links.push(old.remove(at).unwrap_or_else(|| self.link(at.clone())));
                map.links.len() - 1
            });
            map.slots[slot] = Some(index);
        }
        old.keys().for_each(|at| self.post.forget(at));
        let mut homeless = std::mem::take(&mut map.orphans);
        homeless.extend(old.values().flat_map(|link| link.listener.wanted()));
        for (index, link) in map.links.iter().enumerate() {
            for place in link.listener.wanted() {
                if map.index(&self.post, place) != Some(index) && link.listener.forget(place) {
                    homeless.insert(place);
                }
            }
        }
        homeless.retain(|place| !matches!(place, Place::Probe { .. }));
        for place in homeless {
            match map.home(&self.post, place) {
                Some(link) => drop(link.listener.want(place, true)),
                None => drop(map.orphans.insert(place)),
            }
        }
        self.set_probes(map);
        map.masters = masters;
    }

    /// What was refused because its slot had moved is said on where it went.
    fn tell_strays(&self, map: &Map) {
        for link in &map.links {
            for place in link.publisher.take_strays().into_iter().map(Place::Channel) {
                if let Some(home) = map.home(&self.post, place) {
                    home.publisher.tell_missed(place);
                }
            }
        }
    }

    /// Gives each link a channel of its own that its server has.
    fn set_probes(&self, map: &mut Map) {
        for index in 0..map.links.len() {
            let (lane, last) = (map.links[index].lane, map.links[index].probe);
            let on = |salt| Place::Probe { node: self.post.me, lane, salt };
            let Some(probe) = (0..u16::MAX).map(on).find(|place| map.index(&self.post, *place) == Some(index)) else {
                continue;
            };
            let link = &mut map.links[index];
            if probe != last {
                link.listener.forget(last);
            }
            link.probe = probe;
            link.listener.want(probe, false);
        }
    }
}

impl Map {
    fn index(&self, post: &Post, place: Place) -> Option<usize> {
        if self.slots.is_empty() {
            return (!self.links.is_empty()).then_some(0);
        }
        self.slots[slot(&post.names.name(place))]
    }

    fn home(&self, post: &Post, place: Place) -> Option<&Link> {
        self.index(post, place).and_then(|index| self.links.get(index))
    }
}
