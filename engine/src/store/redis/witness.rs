//! Who was last told what by which server.
//!
//! A server that takes over may lack the last steps that its predecessor had answered. What a caller knows from then on
//! may be wrong without any of its calls having failed; so it is told, once, and asks anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::node::Node;

/// Callers by their names, with the history that they were last told of.
#[derive(Debug, Default)]
pub(super) struct Witness(Mutex<HashMap<String, String>>);

impl Witness {
    /// Whether `who` was told of another history before. From now on it is that of `node`.
    pub(super) fn is_another(&self, who: &str, node: &Node) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the server does not tell, each connection may lead to another history.
        let history = match node.history.as_str() {
            "" => node.number.to_string(),
            history => history.to_owned(),
        };
        match told.get_mut(who) {
            Some(last) if *last == history => false,
            Some(last) => {
                *last = history;
                true
            }
            None => {
                told.insert(who.to_owned(), history);
                false
            }
        }
    }

    /// `who` has left.
    pub(super) fn forget(&self, who: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }
}
