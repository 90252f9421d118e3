//! One file a command.

pub(crate) mod bench;
pub(crate) mod control;
pub(crate) mod dead;
pub(crate) mod demo;
pub(crate) mod pipe;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod verify;
