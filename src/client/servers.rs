//! The addresses of one server: the nodes of a cluster, or the balancers before it. One is in use until it is found not
//! to serve; then it is the next one's turn, and after the last the first's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ClientError, ServerAddress};

/// Where a server can be reached, and which of the addresses is in use. Clones share that.
#[derive(Clone, Debug)]
pub struct Servers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Never empty.
    addresses: Vec<ServerAddress>,
    /// The number of the one in use.
    current: AtomicUsize,
}

/// One of the addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen<'a> {
    number: usize,
    pub(super) address: &'a ServerAddress,
}

impl Servers {
    /// These addresses, to be tried in this order.
    ///
    /// # Errors
    /// [`ClientError::MixedAddresses`].
    pub fn new(first: ServerAddress, others: impl IntoIterator<Item = ServerAddress>) -> Result<Self, ClientError> {
        let tls = first.tls;
        let addresses: Vec<_> = std::iter::once(first).chain(others).collect();
        if addresses.iter().any(|address| address.tls != tls) {
            return Err(ClientError::MixedAddresses);
        }
        Ok(Self::of(addresses))
    }

    fn of(addresses: Vec<ServerAddress>) -> Self {
        Self(Arc::new(Inner { addresses, current: AtomicUsize::new(0) }))
    }

    /// How many addresses there are.
    pub(super) fn count(&self) -> usize {
        self.0.addresses.len()
    }

    /// The address in use.
    pub(super) fn current(&self) -> Chosen<'_> {
        let number = self.0.current.load(Ordering::Relaxed);
        Chosen { number, address: &self.0.addresses[number] }
    }

    /// This one does not serve: it is the next one's turn, unless somebody else has found that out already.
    pub(super) fn pass_over(&self, chosen: Chosen<'_>) {
        let next = (chosen.number + 1) % self.count();
        let _ = self.0.current.compare_exchange(chosen.number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl From<ServerAddress> for Servers {
    fn from(only: ServerAddress) -> Self {
        Self::of(vec![only])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_over_tls_does_not_go_in_the_clear_at_another_address() {
        let address = |tls| ServerAddress { host: "h".to_owned(), port: 1, tls };
        assert!(matches!(Servers::new(address(true), [address(false)]), Err(ClientError::MixedAddresses)));
        assert!(matches!(Servers::new(address(false), [address(true)]), Err(ClientError::MixedAddresses)));
        assert_eq!(Servers::new(address(true), [address(true)]).unwrap().count(), 2);
    }

    #[test]
    fn addresses_take_turns_and_nobody_passes_over_one_that_was_not_tried() {
        let address = |port| ServerAddress { host: "h".to_owned(), port, tls: false };
        let servers = Servers::new(address(1), [address(2), address(3)]).unwrap();
        let other = servers.clone();
        let port = || servers.current().address.port;
        assert_eq!(port(), 1);
        let (mine, theirs) = (servers.current(), other.current());
        servers.pass_over(mine);
        other.pass_over(theirs);
        assert_eq!(port(), 2, "two who found out the same move on once");
        servers.pass_over(servers.current());
        servers.pass_over(servers.current());
        assert_eq!(port(), 1);
        let only = Servers::from(address(7));
        only.pass_over(only.current());
        assert_eq!(only.current().address.port, 7);
    }
}
