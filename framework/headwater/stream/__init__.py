"""What flows through an agent: frames, feeds, plans and operators. Knows neither faust nor the engine."""
