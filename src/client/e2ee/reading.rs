//! Text: encrypting what is sent, reading what came, and reading it later when its key was not there.

use rand::CryptoRng;

use super::room::SealedMsg;
use super::{Body, Core, Message, News};
use crate::client::crypto::{CryptoError, KeyName, TextPlace};
use crate::protocol::{ClientId, KeyEpoch, Msg, Refusal, SendMsg, SessionId, Timestamp};

/// Why a text cannot be encrypted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotSeal {
    /// The session is not known.
    NotInSession,
    /// The session was joined just now, and whether it is encrypted has not been heard yet.
    Unknown,
    /// The session is plain.
    NotEncrypted,
    /// No room key has been rotated in yet.
    Pending,
    /// The current key is not here, or not saved yet.
    NoKey(KeyEpoch),
}

impl Core {
    /// Encrypts a text with the current room key.
    ///
    /// # Errors
    /// Where it cannot be done now; [`CannotSeal::Unknown`], [`CannotSeal::Pending`] and [`CannotSeal::NoKey`] may pass.
    pub fn seal<R: CryptoRng + ?Sized>(
        &self,
        session_id: SessionId,
        client_msg_id: &ClientId,
        text: &str,
        rng: &mut R,
    ) -> Result<SendMsg, CannotSeal> {
        let room = self.rooms.get(&session_id).ok_or(CannotSeal::NotInSession)?;
        match room.e2ee_on {
            None => return Err(CannotSeal::Unknown),
            Some(false) => return Err(CannotSeal::NotEncrypted),
            Some(true) => {}
        }
        let key_epoch = room.current.ok_or(CannotSeal::Pending)?;
        let name = KeyName::new(session_id, key_epoch);
        let key = self.usable_key(&name).ok_or(CannotSeal::NoKey(key_epoch))?;
        let place = TextPlace { key: name, sender_id: self.me, client_msg_id };
        Ok(SendMsg {
            session_id,
            markdown_text: key.encrypt(&place, text, rng),
            is_encrypted: true,
            key_epoch: Some(key_epoch),
            client_msg_id: Some(client_msg_id.clone()),
            content_type: None,
        })
    }

    /// An encrypted message was refused with `stale_room_key`: another epoch is current.
    pub fn stale(&mut self, session_id: SessionId, refusal: &Refusal) -> Vec<super::Effect> {
        let current = refusal.details.as_ref().and_then(|details| details.key_epoch);
        if let Some(room) = self.rooms.get_mut(&session_id)
            && let Some(current) = current.filter(|current| room.current.is_none_or(|known| known < *current))
        {
            room.turn(true, Some(current));
        }
        self.missing_key(session_id)
    }

    /// The current key is needed and not here: gets it.
    pub fn missing_key(&mut self, session_id: SessionId) -> Vec<super::Effect> {
        self.recover(session_id, true);
        self.take_out()
    }

    /// A live message, in order.
    pub(super) fn message(&mut self, session_id: SessionId, seq: u64, time: Timestamp, msg: Msg) {
        let body = self.read(session_id, &msg);
        if let Body::Sealed(Some(epoch)) = body {
            let name = KeyName::new(session_id, epoch);
            self.room(session_id).keep_sealed(SealedMsg { seq, time, msg: msg.clone() });
            self.recover_name(name, false);
        }
        self.tell_message(session_id, SealedMsg { seq, time, msg }, body, false);
    }

    /// The key came: what waited for it is read.
    pub(super) fn read_sealed(&mut self, name: KeyName) {
        let Some(room) = self.rooms.get_mut(&name.session_id) else { return };
        for sealed in room.take_sealed(name.key_epoch) {
            let body = self.read(name.session_id, &sealed.msg);
            self.tell_message(name.session_id, sealed, body, true);
        }
    }

    fn tell_message(&mut self, session_id: SessionId, sealed: SealedMsg, body: Body, late: bool) {
        let SealedMsg { seq, time, msg } = sealed;
        if let (Body::Decrypted(_), Some(id)) = (&body, &msg.client_msg_id)
            && !self.room(session_id).first_time(msg.sender_id, id, seq)
        {
            tracing::warn!(%session_id, seq, "dropped an encrypted message that was there before");
            return;
        }
        let Msg { sender_id, client_msg_id, .. } = msg;
        self.tell(News::Message(Box::new(Message { session_id, seq, time, sender_id, client_msg_id, body, late })));
    }

    /// Reads a message, of the history or live, as far as it can be read now.
    pub fn read(&self, session_id: SessionId, msg: &Msg) -> Body {
        if msg.recalled {
            return Body::Recalled;
        }
        if !msg.is_encrypted {
            return Body::Plain(msg.markdown_text.clone());
        }
        let (Some(key_epoch), Some(client_msg_id)) = (msg.key_epoch, &msg.client_msg_id) else {
            return Body::Unreadable(CryptoError::Text);
        };
        let name = KeyName::new(session_id, key_epoch);
        let Some(key) = self.ring.key(&name) else { return Body::Sealed(Some(key_epoch)) };
        let place = TextPlace { key: name, sender_id: msg.sender_id, client_msg_id };
        match key.decrypt(&place, &msg.markdown_text) {
            Ok(text) => Body::Decrypted(text),
            Err(why) => Body::Unreadable(why),
        }
    }
}
