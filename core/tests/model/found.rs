//! Each flaw breaks one rule, and is found by the property that the rule is there for.

use std::fmt;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

/// Goes one step further each time, at most so many, until properties fail: this has to be among them.
pub(crate) fn must_find<M>(line: M, flaw: impl fmt::Debug, property: &str, longest: usize)
where
    M: Model<
            State: Clone + fmt::Debug + Hash + PartialEq + Send + Sync,
            Action: Clone + fmt::Debug + PartialEq + Send + Sync,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    for depth in 2..=longest {
        let checker = line
            .clone()
            .checker()
            .target_max_depth(depth)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let found = checker.discoveries();
        let failed = line
            .properties()
            .into_iter()
            .filter(|property| property.expectation.discovery_is_failure() && found.contains_key(property.name));
        let failed: Vec<_> = failed.map(|property| property.name).collect();
        if !failed.is_empty() {
            assert!(failed.contains(&property), "{flaw:?} broke {failed:?}");
            println!(
                "{flaw:?}: {property}, in {} steps",
                found[property].clone().into_actions().len()
            );
            return;
        }
    }
    panic!("{flaw:?} is not found");
}
