"""The tests of the package, by what they stand on: unit, contract, acceptance, migrations, faults, house."""
